"""All accounts as ways to a provider: which wire to use for a target, and the request ready to leave.

The requests themselves are ``models.upstream``'s; this adds what needs waiting (access tokens) and what
a wire's answer is read with. It knows nothing of states and limits (``models.pools``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

from nightkeep.core.clock import Clock
from nightkeep.core.errors import ConfigError
from nightkeep.models.gateway.attempt import Outbound
from nightkeep.models.gateway.call import Call
from nightkeep.models.gateway.hosted import HostedFrames
from nightkeep.models.gateway.progress import Said
from nightkeep.models.gateway.side_operations import read_side
from nightkeep.models.provider_spec import ProviderSpec
from nightkeep.models.transport import HttpClient
from nightkeep.models.upstream import UpstreamAccount
from nightkeep.models.wire import CODECS
from nightkeep.models.wire.base import Operation, Wire

__all__ = ["Directory"]

_TOKEN_WAIT_S = 10.0


class Directory:
    """The ways to all providers."""

    def __init__(self, client: HttpClient, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._accounts: dict[str, UpstreamAccount] = {}
        self._providers: dict[str, ProviderSpec] = {}

    def replace(self, accounts: Iterable[UpstreamAccount]) -> None:
        """Take another set of accounts; calls in flight keep what they have."""
        self._accounts = {account.access.name: account for account in accounts}
        self._providers = {account.spec.id: account.spec for account in self._accounts.values()}

    def wire_for(self, provider: str, model: str, operation: Operation, client: Wire) -> Wire | None:
        """The wire to ask a provider on; None where it does not offer the operation."""
        spec = self._providers.get(provider)
        return spec.wire_for(model, operation, client) if spec is not None else None

    async def outbound(self, account_id: str, call: Call, said: Said, model: str, request_id: str) -> Outbound:
        """The request for one attempt, ready to leave.

        ``request_id`` goes along as ``x-client-request-id`` (OpenAI keeps it for support; others ignore it), so that
        a provider's own report can be joined with the ledger.

        Raises:
            ConfigError: the account is not known any more, or its provider gave no access token.
        """
        account = self._accounts.get(account_id)
        if account is None:
            raise ConfigError(f"account {account_id!r} was removed while the call was waiting")
        now = self._clock.now()
        if account.needs_token(now):
            await self._fetch_token(account)
        operation, codec = call.door.operation, CODECS[said.wire]
        is_stream = call.head.stream and operation is Operation.CHAT
        request = account.request(
            said.wire,
            operation,
            model,
            said.body,
            stream=is_stream,
            client_headers=call.headers if said.wire is call.door.wire else _NO_HEADERS,
            now=now,
        )
        return Outbound(
            origin=request.origin,
            method=request.method,
            target=request.target,
            headers=request.headers + f"x-client-request-id: {request_id}\r\n".encode("ascii"),
            body=request.body,
            codec=codec,
            read=codec.decoder().whole
            if operation is Operation.CHAT
            else partial(read_side, operation, said.wire, model),
            is_stream=is_stream,
            frames=HostedFrames if request.is_event_stream else None,
        )

    def adapt(self, account_id: str, said: Said) -> Said:
        """The request without what this vendor, unlike the wire's inventor, does not take."""
        account = self._accounts.get(account_id)
        if account is None:
            return said
        body, stripped = account.adapt(said.wire, said.body)
        return said if body is said.body else Said(said.wire, body, said.stripped + stripped)

    async def _fetch_token(self, account: UpstreamAccount) -> None:
        request = account.token_request(self._clock.now())
        upstream = await self._client.send(
            request.origin, request.method, request.target, request.headers, request.body, first_byte_s=_TOKEN_WAIT_S
        )
        body = await upstream.read(_TOKEN_WAIT_S, 1 << 20)
        if not account.accept_token(upstream.status, body, self._clock.now()):
            raise ConfigError(f"account {account.access.name!r}: its provider gave no access token")


_NO_HEADERS: Mapping[str, str] = {}
