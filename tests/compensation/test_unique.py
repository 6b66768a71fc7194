"""Ids are unique: in one process, in its children, and in several threads."""

from __future__ import annotations

import os
import sys
import threading
import warnings

import pytest

from returns_pipeline.compensation._unique import unique


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_forked_child_does_not_use_the_ids_of_its_parent() -> None:
    unique()  # more are ready now
    reads, writes = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads beside a fork
        process = os.fork()
    if process == 0:
        os.write(writes, "".join(unique() for _ in range(50)).encode())
        os._exit(0)
    os.waitpid(process, 0)
    told = os.read(reads, 1600).decode()
    os.close(reads)
    os.close(writes)
    theirs = {told[at : at + 32] for at in range(0, 1600, 32)}
    assert len(theirs) == 50
    assert not theirs & {unique() for _ in range(1000)}


def test_threads_do_not_share_an_id() -> None:
    found: list[str] = []

    def make() -> None:
        found.extend([unique() for _ in range(5_000)])

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == len(set(found)) == 20_000
    assert {len(one) for one in found} == {32}
