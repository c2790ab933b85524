"""`medmtl serve` under load, and what it answers to requests that mean harm; `make bench` runs it.

A server is started on a run. As many clients as `--requests` send a scan at once, a tenth of them something that is
none; a client that is told to come again does so. Every mask is compared with that of `medmtl predict`. Then a zip that
unpacks to more than it may, an upload of 3 GB, and a path for a file name, with the line that each gets.
What was found is added to `bench.json`.
"""

import argparse
import gzip
import http.client
import io
import json
import random
import re
import select
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain, repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel
import numpy as np
import psutil
from exported import images

from medmtl.cli import main as run_medmtl

BOUNDARY = "a-boundary-of-a-form"
RETRIES = 500
LIMIT_MB = 64  # of a request


def form(name: str, content: bytes) -> bytes:
    """A form with a file."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    return head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()


def ask(port: int, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    given = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"} if body is not None else {}
    try:
        connection.request(method, path, body, {**given, **headers})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


@contextmanager
def server(run: Path, queue: int) -> Iterator[tuple[int, psutil.Process]]:
    """The port and the process of a server."""
    command = [sys.executable, "-m", "medmtl", "serve", f"--run={run}", "--port=0", f"--queue={queue}"]
    command += [f"--max-upload={LIMIT_MB}", "--keep=400"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            found = re.search(r"page: http://127.0.0.1:(\d+)/", line)
            if found is not None:
                yield int(found[1]), psutil.Process(process.pid)
                break
    finally:
        process.terminate()
        process.wait()


def peak_mb(process: psutil.Process) -> float:
    """The most memory that a process has had."""
    return int(re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())[0]) / 1e3


def garbage(number: int, scan: bytes) -> tuple[str, bytes]:
    """One of several things that are no scan."""
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../scan.dcm", bytes(10**6))
    chance = random.Random(number)
    kinds = [
        ("noise.nii.gz", chance.randbytes(5000)),
        ("cut.nii.gz", scan[: len(scan) // 2]),
        ("text.txt", b"no scan"),
        ("above.zip", bomb.getvalue()),
        ("empty.nrrd", b""),
        ("huge.nii", header_of_terabytes()),
    ]
    return kinds[number % len(kinds)]


def header_of_terabytes() -> bytes:
    """A NIfTI file that promises more voxels than any computer holds."""
    header = nibabel.Nifti1Header()
    header.set_data_shape((30000, 30000, 30000))
    header["vox_offset"], header["magic"] = 352, b"n+1"
    return header.binaryblock + bytes(1000)


def load(port: int, scans: dict[str, bytes], masks: dict[str, np.ndarray], requests: int) -> dict[str, Any]:
    """What became of many requests that come at once."""
    names = list(scans)
    statuses: Counter[int] = Counter()
    lock, start = threading.Lock(), threading.Barrier(requests)

    def client(number: int) -> tuple[str, float]:
        name = names[number % len(names)]
        bad = number % 10 == 0
        body = form(*garbage(number // 10, scans[name])) if bad else form(name, scans[name])
        start.wait()
        begun = time.perf_counter()
        for _ in range(RETRIES):
            status, headers, answer = ask(port, "POST", "/predict", body)
            with lock:
                statuses[status] += 1
            if status != 503:
                break
            time.sleep(float(headers["retry-after"]) * random.Random(number).uniform(0.5, 1.5))
        seconds = time.perf_counter() - begun
        found = json.loads(answer)
        if bad:
            return ("refused" if 400 <= status < 500 and found.keys() == {"error"} else "wrong"), seconds
        if status != 200:
            return "failed", seconds
        status, _, mask = ask(port, "GET", found["links"]["mask"])
        same = status == 200 and np.array_equal(voxels(mask), masks[name])
        return ("same mask" if same else "wrong"), seconds

    with ThreadPoolExecutor(requests) as threads:
        outcomes = list(threads.map(client, range(requests)))
    seconds = np.array([taken for _, taken in outcomes])
    return {
        "requests": requests,
        "outcomes": dict(Counter(outcome for outcome, _ in outcomes)),
        "answers": {str(status): count for status, count in sorted(statuses.items())},
        "seconds": {"median": float(np.median(seconds)), "longest": float(seconds.max())},
    }


def voxels(mask: bytes) -> np.ndarray:
    """Those of a NIfTI file in memory."""
    return np.asarray(nibabel.Nifti1Image.from_bytes(gzip.decompress(mask)).dataobj)


def flood(port: int, chunked: bool) -> tuple[int, dict[str, str], bytes]:
    """The answer to 3 GB, and how many of them were sent until it came: the client looks while it sends, as curl."""
    size = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {3 * 10**9}"
    kind = f"Content-Type: multipart/form-data; boundary={BOUNDARY}"
    head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{kind}\r\n{size}\r\n\r\n".encode()
    pieces = chain([form("a.nii", b"").partition(f"\r\n--{BOUNDARY}--".encode())[0]], repeat(bytes(1 << 20), 3000))
    sent = 0
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(head)
        for piece in pieces:
            if select.select([connection], [], [], 0)[0]:
                break
            connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            sent += len(piece)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        line = json.loads(answer.read())["error"]
    return answer.status, {}, json.dumps({"error": f"{line} ({sent // 10**6} MB were sent)"}).encode()


def hostile(port: int, scan: bytes) -> dict[str, str]:
    """What requests that mean harm are answered."""
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("scan.nii", bytes(10**9))
    found = {"a zip of 1 GB of zeros": ask(port, "POST", "/predict", form("scan.zip", bomb.getvalue()))}
    found["3 GB, said at once"] = flood(port, chunked=False)
    found["3 GB of zeros, in chunks"] = flood(port, chunked=True)
    found["a path for a name"] = ask(port, "POST", "/predict", form("../../etc/passwd", b"root:x:0:0"))
    lines = {}
    for kind, (status, _, answer) in found.items():
        lines[kind] = f"{status} {json.loads(answer)['error']}"
    status, _, answer = ask(port, "POST", "/predict", form("../../etc/passwd.nii.gz", scan))
    lines["a path for the name of a scan"] = f"{status} {json.loads(answer)['record']['input']}"
    return lines


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("bench.json"))
    parser.add_argument("--run", type=Path, help="run to serve; without it one is trained for a moment")
    parser.add_argument("--scans", type=Path, help="folder of NIfTI files; without it the test images of the run")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--files", type=int, default=10, help="different scans")
    parser.add_argument("--queue", type=int, default=8)
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        run, masked = given.run or Path(folder, "run"), Path(folder, "masks")
        if given.run is None:
            run_medmtl(["fit", "--config=multitask.yaml", f"--run={run}", "--trainer.max_epochs=1", "--data.batches=2"])
        files = sorted(given.scans.glob("*.nii.gz")) if given.scans else [path for _, path in images(run)]
        scans = {path.name: path.read_bytes() for path in files[: given.files]}
        masks = {}
        for name, content in scans.items():
            path = Path(folder, name)
            path.write_bytes(content)
            run_medmtl(["predict", f"--run={run}", f"--input={path}", f"--output={masked}"])
            written = masked / f"{name.removesuffix('.gz').removesuffix('.nii')}_mask.nii.gz"
            masks[name] = voxels(written.read_bytes())
        with server(run, given.queue) as (port, process):
            ask(port, "POST", "/predict", form(*next(iter(scans.items()))))
            before = peak_mb(process)
            row = load(port, scans, masks, given.requests)
            row["peak_mb"] = {"one request": before, "all": peak_mb(process)}
            row["hostile"] = hostile(port, next(iter(scans.values())))
            row["peak_mb"]["hostile"] = peak_mb(process)
    rows = json.loads(given.out.read_text()) if given.out.is_file() else {}
    given.out.write_text(json.dumps({**rows, "serving": row}, indent=1) + "\n")
    print(json.dumps(row, indent=1))


if __name__ == "__main__":
    main()
