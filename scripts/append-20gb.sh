#!/bin/sh
# Appends 20 GB of generated rows through the program, kills it with SIGKILL in the middle, resumes, and compares the index with
# one that was appended without interruption. Not a part of CI: it takes minutes, and twice the room of an i8 index (10 GB; the
# rows come from a pipe and are never on disk).
#
# usage: scripts/append-20gb.sh [PROGRAM [FOLDER [GB]]]
set -eu
gradix=${1:-target/release/gradix}
folder=$(mktemp -d "${2:-/tmp}/append-20gb.XXXXXX")
gigabytes=${3:-20}
python=${GRADIX_PYTHON:-python3}
trap 'rm -rf "$folder"' EXIT

# An npy stream of rows of 4,096 numbers, the same each time. Rows differ by a shift of one block of noise.
cat > "$folder/rows.py" <<'END'
import sys, numpy as np
rows, dims = int(sys.argv[1]), 4096
out = sys.stdout.buffer
np.lib.format.write_array_header_1_0(out, {"descr": "<f4", "fortran_order": False, "shape": (rows, dims)})
noise = np.random.default_rng(1).standard_normal(1 << 23, dtype=np.float32)
for first in range(0, rows, 1024):
    count = min(1024, rows - first)
    start = first * 37 % (len(noise) - count * dims)
    block = noise[start:start + count * dims].reshape(count, dims).copy()
    block[:, 0] = np.arange(first, first + count, dtype=np.float32) / rows
    out.write(block.tobytes())
END

rows=$((gigabytes * 1000000000 / 16384))
append() {
    "$python" "$folder/rows.py" "$rows" |
        "$gradix" append "$1" - --format npy --create --encoding i8 --ids '{row:08}' --resume --json --progress never
}
# The digest of all rows: what an export writes of them.
digest() {
    "$gradix" export "$1" - --format arrow --number f16 --quiet | sha256sum
}
started=$(date +%s.%N)
append "$folder/killed" > "$folder/first.json" 2> "$folder/first.err" &
append=$!
# Half-way: the segments have half of the bytes that they will have.
while [ "$(du -sk "$folder/killed" 2> /dev/null | cut -f1 || echo 0)" -lt $((rows * 2)) ]; do sleep 0.2; done
process=$(pgrep -f "^$gradix append $folder/killed " | head -n 1)
grep VmHWM "/proc/$process/status"
kill -KILL "$process"
wait "$append" || true
echo "killed after $(echo "$(date +%s.%N) - $started" | bc) s; committed: $("$gradix" stats "$folder/killed" --json | grep -o '"rows":[0-9]*' | head -n 1)"
append "$folder/killed"
echo "killed and resumed: $(echo "$(date +%s.%N) - $started" | bc) s"
killed=$(digest "$folder/killed")
"$gradix" verify "$folder/killed"
rm -rf "$folder/killed"

started=$(date +%s.%N)
append "$folder/whole"
echo "without interruption: $(echo "$(date +%s.%N) - $started" | bc) s for $gigabytes GB of f32"
whole=$(digest "$folder/whole")
if [ "$killed" != "$whole" ]; then
    echo "the rows differ: $killed and $whole" >&2
    exit 1
fi
echo "the same $rows rows: $whole"
