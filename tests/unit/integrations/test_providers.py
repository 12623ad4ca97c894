"""Providers of integrated_api nodes (integrations/providers.py)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import dipeo_nb as dp
from dipeo_nb.domain.ports import IntegrationPort
from dipeo_nb.errors import ConfigurationError, IntegrationError, ServiceError, ValidationError
from dipeo_nb.integrations.providers import BaseProvider, IntegratedApiService
from tests.support.wire_openai import run


class JiraProvider(BaseProvider):
    name = "jira"

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.fails: list[Exception] = []
        self.closed = 0

    async def create_issue(self, project: str, summary: str, resource_id: str | None = None) -> dict[str, Any]:
        self.calls.append((project, summary, resource_id))
        if self.fails:
            raise self.fails.pop(0)
        return {"key": f"{project}-1"}

    async def slow(self) -> None:
        await asyncio.sleep(60)

    async def cleanup(self) -> None:
        self.closed += 1

    def not_an_operation(self) -> None: ...

    async def _private(self) -> None: ...


def test_a_node_calls_an_operation():
    """Through the session, with the node's config; the provider is closed with it."""
    jira = JiraProvider()
    service = IntegratedApiService(jira)
    assert isinstance(service, IntegrationPort)
    assert service.operations() == {"jira": ("create_issue", "slow")}
    props = {
        "provider": "jira",
        "operation": "create_issue",
        "config": {"project": "DP", "summary": "Write"},
        "resource_id": "r1",
    }
    diagram = {
        "version": "light",
        "nodes": [
            {"label": "S", "type": "start"},
            {"label": "Issue", "type": "integrated_api", "props": props},
            {"label": "E", "type": "endpoint"},
        ],
        "connections": [{"from": "S", "to": "Issue"}, {"from": "Issue", "to": "E"}],
    }
    with dp.Session(integrations=service) as session:
        assert session.run(diagram).outputs["E"] == {"key": "DP-1"}
    assert jira.calls == [("DP", "Write", "r1")]
    assert jira.closed == 1


@pytest.mark.parametrize(
    ("provider", "operation", "config", "says"),
    [
        ("jiro", "create_issue", {}, "There is no provider 'jiro'"),
        ("jira", "create", {}, "jira has no operation 'create'"),
        ("jira", "_private", {}, "no operation"),
        ("jira", "cleanup", {}, "no operation"),
        ("jira", "operations", {}, "no operation"),
        ("jira", "create_issue", {"project": "DP"}, "missing a required argument: 'summary'"),
        ("jira", "create_issue", {"project": "DP", "summary": "x", "more": 1}, "unexpected keyword argument 'more'"),
    ],
)
def test_what_cannot_be_called_is_one_clear_error(provider: str, operation: str, config: dict[str, Any], says: str):
    with pytest.raises(ValidationError, match=says):
        run(IntegratedApiService(JiraProvider()).execute(provider, operation, config=config))


def test_transient_failures_are_tried_again_and_others_are_not():
    """As often as the node says; each try has the node's time."""
    jira = JiraProvider()
    service = IntegratedApiService(jira)
    call = {"project": "DP", "summary": "x"}
    jira.fails = [ServiceError("busy", status=503)]
    assert run(service.execute("jira", "create_issue", config=call, max_retries=1)) == {"key": "DP-1"}
    jira.fails = [ServiceError("busy", status=503), ServiceError("busy", status=503)]
    with pytest.raises(ServiceError, match="busy"):
        run(service.execute("jira", "create_issue", config=call, max_retries=1))
    jira.fails = [ServiceError("no", status=404)]
    with pytest.raises(ServiceError, match="no"):
        run(service.execute("jira", "create_issue", config=call))
    assert len(jira.calls) == 5
    with pytest.raises(IntegrationError, match="took too long"):
        run(service.execute("jira", "slow", timeout=0.01))


def test_a_provider_needs_a_name_and_operations():
    class Nameless(BaseProvider):
        async def work(self) -> None: ...

    class Empty(BaseProvider):
        name = "empty"

    for provider, says in ((Nameless(), "no `name`"), (Empty(), "no operation")):
        with pytest.raises(ConfigurationError, match=says):
            IntegratedApiService(provider)
    with pytest.raises(ConfigurationError, match="already"):
        IntegratedApiService(JiraProvider(), JiraProvider())


def test_the_names_of_dipeo():
    """The same service by its names."""
    service = IntegratedApiService()
    service.register_provider(JiraProvider())
    assert service.get_supported_providers() == ["jira"]
    assert service.get_provider_operations("jira") == ["create_issue", "slow"]
    assert service.validate_operation("jira", "create_issue", {"project": "P", "summary": "s"})
    assert not service.validate_operation("jira", "create_issue", {"project": "P"})
    assert not service.validate_operation("jira", "create")
    assert not service.validate_operation("slack", "send_message")
    made = run(service.execute_operation("jira", "create_issue", {"project": "P", "summary": "s"}, resource_id="r"))
    assert made == {"success": True, "data": {"key": "P-1"}, "metadata": {"provider": "jira", "operation": "create_issue"}}
