"""Work in threads: its result or error comes back, in order, and nobody waits for what hangs."""

import asyncio
import subprocess
import sys
import threading
from functools import partial

import pytest

from edge.threads import Worker, in_thread


def test_a_thread_hands_back_results_and_errors() -> None:
    assert asyncio.run(in_thread(lambda: 7)) == 7
    with pytest.raises(ZeroDivisionError):
        asyncio.run(in_thread(lambda: 1 // 0))


@pytest.mark.parametrize("call", ["in_thread", "Worker('w').call"])
def test_what_hangs_does_not_keep_the_process(call: str) -> None:
    code = (
        "import asyncio, threading; from edge.threads import Worker, in_thread\n"
        "async def main():\n"
        f"    task = asyncio.create_task({call}(threading.Event().wait))\n"
        "    await asyncio.sleep(0)\n"
        "    task.cancel()\n"
        "asyncio.run(main())"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_a_worker_does_one_thing_after_the_other_on_one_thread() -> None:
    async def go() -> None:
        worker = Worker("w")
        seen: list[int] = []
        given = [worker.call(partial(seen.append, number)) for number in range(100)]
        given.insert(50, worker.call(lambda: seen.append(1 // 0)))
        results = await asyncio.gather(*given, return_exceptions=True)
        assert seen == [*range(100)]
        assert [type(each) for each in results].index(ZeroDivisionError) == 50
        threads = {await worker.call(threading.current_thread) for _ in range(3)}
        assert [thread.name for thread in threads] == ["w"]

    asyncio.run(go())


def test_a_worker_leaves_out_what_nobody_waits_for() -> None:
    async def go() -> None:
        worker = Worker("w")
        going, seen = threading.Event(), list[str]()
        first = asyncio.create_task(worker.call(going.wait))
        late = asyncio.create_task(worker.call(partial(seen.append, "late")))
        await asyncio.sleep(0)
        late.cancel()
        await asyncio.gather(late, return_exceptions=True)
        going.set()
        await first
        await worker.call(partial(seen.append, "last"))
        assert seen == ["last"]

    asyncio.run(go())


def test_a_closed_worker_does_what_it_was_given_and_takes_no_more() -> None:
    async def go() -> None:
        worker = Worker("w")
        going = threading.Event()
        given = asyncio.create_task(worker.call(partial(going.wait, 60)))
        await asyncio.sleep(0)
        worker.close()
        with pytest.raises(RuntimeError, match="'w' is closed"):
            await worker.call(lambda: None)
        going.set()
        assert await given is True

    asyncio.run(go())
