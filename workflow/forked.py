"""Stages forked from a process that has imported torch, transformers and vLLM already.

    python workflow/forked.py MODULE ARGUMENT…    as `python -m MODULE ARGUMENT…`, in the folder of a run

Importing them is most of what a short stage does. The first stage starts that process beside itself; it ends
with the run, when nobody holds `.snakemake/alive` any more. Until it listens, and wherever it can't be
reached, stages run plainly.
"""

import contextlib
import fcntl
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import traceback
from pathlib import Path

from pipeline.locks import is_held

HOME = Path(".snakemake")
ADDRESS = str(HOME / "forked.sock")
PRELOADED = (
    "igpo.warmup",
    "igpo.score",
    "transformers.models.llama.modeling_llama",
    "vllm.entrypoints.llm",
    "vllm.v1.worker.cpu_worker",
    "vllm.model_executor.models.llama",
    "vllm.model_executor.layers.quantization.compressed_tensors.compressed_tensors",
)


def run_here(words: list[str]) -> None:
    """The stage, in this process."""
    sys.modules.pop(words[0], None)
    sys.argv = words
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)


def main(words: list[str]) -> None:
    """Let the server run the stage; without one start it and run the stage here."""
    with socket.socket(socket.AF_UNIX) as server:
        try:
            server.connect(ADDRESS)
        except OSError:
            start_server()
        else:
            request = json.dumps([words, dict(os.environ)]).encode()
            socket.send_fds(server, [len(request).to_bytes(8, "big")], [1, 2])
            server.sendall(request)
            code = server.recv(1)
            sys.exit(code[0] if code else 1)  # without one it was killed
    run_here(words)


def start_server() -> None:
    """Start the server; it ends at once if another stage's has started."""
    with (HOME / "forked.log").open("a") as log:
        command = [sys.executable, __file__]
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def serve() -> None:
    """Import, listen, fork a process for every request."""
    lock = os.open(HOME / "forked.lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    for name in PRELOADED:
        with contextlib.suppress(ImportError):  # the stage that needs it will say so
            importlib.import_module(name)
    gc.freeze()  # else every collection, of which vLLM asks for some, walks all that was imported
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    Path(ADDRESS).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(ADDRESS)
        server.listen()
        server.settimeout(1.0)
        while is_held(HOME / "alive"):
            with contextlib.suppress(TimeoutError):
                connection, _ = server.accept()
                if os.fork() == 0:
                    server.close()
                    os.close(lock)
                    answer(connection)
                connection.close()
    Path(ADDRESS).unlink(missing_ok=True)


def answer(connection: socket.socket) -> None:
    """Run the stage that a connection asks for, in this forked process, and say its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    connection.setblocking(True)
    head, handles, _, _ = socket.recv_fds(connection, 8, 2)
    with connection.makefile("rb") as stream:
        words, environment = json.loads(stream.read(int.from_bytes(head, "big")))
    for target, handle in enumerate(handles, start=1):
        os.dup2(handle, target)
        os.close(handle)
    os.environ.update(environment)
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    threading.Thread(target=end_with, args=[connection], daemon=True).start()
    code: object = 1
    try:
        run_here(words)
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    exit_code = code if isinstance(code, int) else 1
    connection.sendall(bytes([exit_code]))
    os._exit(exit_code)


def end_with(connection: socket.socket) -> None:
    """End this process when the one that asked for it has ended."""
    connection.recv(1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    if sys.argv[1:]:
        main(sys.argv[1:])
    else:
        serve()
