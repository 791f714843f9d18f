"""The words of the reasons."""

from pgproxy.session.pins import LASTING, NO_REASON, PinReason, words


def test_words_come_in_the_order_of_the_table() -> None:
    assert words(frozenset(PinReason)) == [reason.value for reason in PinReason]
    assert words(frozenset({PinReason.LISTEN, PinReason.HELD_CURSOR})) == ["held_cursor", "listen"]
    assert words(NO_REASON) == []


def test_each_has_its_own_word_in_small_letters() -> None:
    assert all(reason.value == reason.name.lower() for reason in PinReason)


def test_what_lasts() -> None:
    assert LASTING == {PinReason.LIBRARY_LOADED, PinReason.SEED}
