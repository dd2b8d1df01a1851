# Runs a program in gdb until it allocates $size bytes. Prints one frame of its stack per line: kind, module,
# offset, file, line, function, separated by tabs. gdb also shows frames that tail calls replaced.
import os
import gdb

gdb.execute("set pagination off")
gdb.execute("set confirm off")
gdb.execute("set breakpoint pending on")
gdb.execute("set debuginfod enabled off", to_string=True)
gdb.execute("break main")
gdb.execute("run")
gdb.execute("break malloc if $rdi == %d" % int(gdb.convenience_variable("size")))
gdb.execute("continue")

bases = {}
for line in gdb.execute("info proc mappings", to_string=True).splitlines():
    words = line.split()
    if words and words[0].startswith("0x") and words[-1].startswith("/"):
        start, end = int(words[0], 16), int(words[1], 16)
        first, last = bases.get(words[-1], (start, end))
        bases[words[-1]] = min(start, first), max(end, last)

frame = gdb.newest_frame()
while frame:
    pc = frame.pc()
    path, base = next(((path, base) for path, (base, end) in bases.items() if base <= pc < end), ("?", 0))
    place = frame.find_sal()
    file = place.symtab.filename if place.symtab else ""
    kind = {gdb.INLINE_FRAME: "inlined", gdb.TAILCALL_FRAME: "tail call"}.get(frame.type(), "real")
    words = ["frame", kind, os.path.basename(path), hex(pc - base), file, str(place.line), frame.name() or ""]
    print("\t".join(words))
    frame = frame.older()
gdb.execute("kill")
