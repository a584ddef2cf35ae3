"""Everything that can be known of a tree, a line for each entry. Names of one file are told by the first of them."""
import hashlib, os, stat, sys

root = os.fsencode(sys.argv[1])
inodes = {}
lines = []


def line(path):
    s = os.lstat(path)
    name = path[len(root):] or b"/"
    kind = stat.S_IFMT(s.st_mode)
    words = [name, oct(s.st_mode), s.st_uid, s.st_gid, s.st_mtime_ns]
    if kind == stat.S_IFREG:
        with open(path, "rb") as file:
            words += [s.st_size, hashlib.sha256(file.read()).hexdigest()]
    if kind == stat.S_IFLNK:
        words.append(os.readlink(path))
    if kind in (stat.S_IFCHR, stat.S_IFBLK):
        words.append(s.st_rdev)
    names = [n for n in os.listxattr(path, follow_symlinks=False) if ".overlay." not in n]
    words += [(n, os.getxattr(path, n, follow_symlinks=False)) for n in sorted(names)]
    if kind != stat.S_IFDIR:
        inodes.setdefault(s.st_ino, []).append(name)
    lines.append((words, s.st_ino))


for directory, names, files in os.walk(root):
    names.sort()
    line(directory)
    links = [n for n in names if os.path.islink(os.path.join(directory, n))]
    for name in sorted(files + links):
        line(os.path.join(directory, name))
for words, inode in lines:
    group = inodes.get(inode, [])
    print(*words, *(group[:1] if len(group) > 1 else []))
