"""Who may ask next: first come, first served, a few at most for each client, and whoever leaves is out."""

from __future__ import annotations

import threading
import time
from collections import Counter

from regap_patch.errors import DemoError


class Stopped(Exception):
    """Somebody does not want the answer any more: raised where it is being made."""


class Line:
    """A queue of requests, of which the first is being answered.

    Args:
        most: requests at once, the one being answered included.
        most_per_client: of one client.

    Attributes:
        closed: no more are taken.
    """

    def __init__(self, most: int = 32, most_per_client: int = 2) -> None:
        self._most, self._most_per_client = most, most_per_client
        self._tickets: list[Ticket] = []
        self.closed = False
        self._moved = threading.Condition()

    def __len__(self) -> int:
        with self._moved:
            return len(self._tickets)

    def enter(self, client: str) -> Ticket:
        """A place at the end.

        Args:
            client: whose.

        Raises:
            DemoError: the line is full or closed, or the client has its share of it.
        """
        with self._moved:
            if self.closed:
                raise DemoError("The demo is being ended, so nothing is answered any more: start it again.")
            mine = Counter(ticket.client for ticket in self._tickets)[client]
            if mine >= self._most_per_client:
                raise DemoError(
                    f"You have {mine} requests here already, which is as many as one client may have: "
                    f"wait for them, or stop them."
                )
            if len(self._tickets) >= self._most:
                raise DemoError(
                    f"{len(self._tickets)} requests are here, which is all there is room for: try again soon."
                )
            ticket = Ticket(self, client)
            self._tickets.append(ticket)
            return ticket

    def stop(self, client: str) -> int:
        """Stop all requests of a client; how many there were."""
        with self._moved:
            mine = [ticket for ticket in self._tickets if ticket.client == client]
            for ticket in mine:
                ticket.stop()
            return len(mine)

    def close(self) -> None:
        """Stop all requests, and take no more."""
        with self._moved:
            self.closed = True
            for ticket in self._tickets:
                ticket.stop()

    def ahead_of(self, ticket: Ticket) -> int:
        """How many are before this one."""
        with self._moved:
            return self._tickets.index(ticket)

    def wait(self, ticket: Ticket, seconds: float) -> bool:
        """Until it is this one's turn, or it was stopped, or the time is over; whether it is its turn."""
        until = time.monotonic() + seconds
        with self._moved:
            before = self._tickets.index(ticket)
            while not ticket.stopped and self._tickets[0] is not ticket:
                left = until - time.monotonic()
                if left <= 0 or self._tickets.index(ticket) != before:
                    break
                self._moved.wait(left)
            return self._tickets[0] is ticket

    def leave(self, ticket: Ticket) -> None:
        """Give the place up."""
        with self._moved:
            if ticket in self._tickets:
                self._tickets.remove(ticket)
                self._moved.notify_all()

    def wake(self) -> None:
        """Let all who wait look again."""
        with self._moved:
            self._moved.notify_all()


class Ticket:
    """A place in the line; `with` gives it up at the end, and stops what was asked for with it."""

    def __init__(self, line: Line, client: str) -> None:
        self._line, self.client = line, client
        self._stop = threading.Event()

    @property
    def stopped(self) -> bool:
        """Nobody waits for the answer any more."""
        return self._stop.is_set()

    def stop(self) -> None:
        """The answer is not wanted any more."""
        self._stop.set()
        self._line.wake()

    def check(self) -> None:
        """Raise if it was stopped.

        Raises:
            Stopped: it was.
        """
        if self.stopped:
            raise Stopped

    def ahead(self) -> int:
        """How many are before this one."""
        return self._line.ahead_of(self)

    def wait(self, seconds: float) -> bool:
        """Until something changes; whether it is this one's turn."""
        return self._line.wait(self, seconds)

    def __enter__(self) -> Ticket:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._line.leave(self)
