"""What the head of all processes does."""

from twisted.internet.selectreactor import SelectReactor

from pgproxy.head import stop


def test_who_stops_what_somebody_has_stopped_in_the_same_turn_has_made_no_mistake() -> None:
    reactor = SelectReactor()
    stops = []

    def twice() -> None:
        reactor.stop()
        stop(reactor)
        stops.append("both")

    reactor.callWhenRunning(twice)
    reactor.run(installSignalHandlers=False)
    assert stops == ["both"]
