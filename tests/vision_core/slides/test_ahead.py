from concurrent.futures import Future
from threading import Event

from vision_core.errors import InputError
from vision_core.slides.ahead import one_ahead


def test_one_ahead__prepares_the_next_while_one_is_worked_on() -> None:
    begun = [Event(), Event(), Event()]

    def prepare(number: int) -> int:
        begun[number].set()
        if number == 1:
            raise InputError("bad")
        return 10 * number

    results: list[object] = []
    for number, future in one_ahead(range(3), prepare):
        if number < 2:
            assert begun[number + 1].wait(10)
        results.append(_result(future))
    assert results == [0, "bad", 20]
    assert list(one_ahead([], prepare)) == []


def _result(future: Future[int]) -> object:
    try:
        return future.result()
    except InputError as error:
        return str(error)
