"""`ConnectorConformance`: what every connector keeps to."""

from emp_core.testing.conformance.connector_jobs import JobRules
from emp_core.testing.conformance.connector_life import LifeRules
from emp_core.testing.conformance.connector_stops import StopRules, TroubleRules

__all__ = ["ConnectorConformance"]


class ConnectorConformance(LifeRules, JobRules, StopRules, TroubleRules):
    """The rules of `Connector`. A subclass names its connector, two payloads, and gives the fixture ``service``::

        class FakeShout(FakeService):
            async def answer(self, request):
                if request.path == "/health":
                    return web.Response()
                said = await request.json()
                if not isinstance(said.get("text"), str):
                    return web.Response(status=422)
                async with self.job():
                    return web.json_response({"text": said["text"].upper()})

        class TestShoutConnector(ConnectorConformance):
            connector_class = ShoutConnector
            payloads = ({"text": "hello"}, {"text": "world"})

            def environ(self, url):
                return {"SHOUT_URL": url}

            @pytest.fixture
            async def service(self):
                async with FakeShout() as service:
                    yield service

    The service listens on a real socket, and the suite puts a link before it that it cuts, refuses, silences and answers
    with garbage by itself: a service needs to know nothing of that. A connector that needs no service gives no fixture.

    Attributes:
        connector_class: the connector.
        payloads: two payloads or more that can be run, whose outcomes differ.
        bad_payloads: payloads that are refused as InvalidJob before the service works on them.
        long_payload: a job that takes very long and says how far it is, where no service can hold its jobs.
        service_required: what jobs ask for; the connector's ``service_type`` when not given.
        options: the service's entry of the mapping, beyond what the core reads.
        secrets: texts that ``environ`` hands over and nobody may see.
        garbage: answers that are none. Override it for a service to which one of them means something.
        oversized_bytes: length of an answer that is not read to its end.
        cancel_within_s: how long the service may go on after its job was stopped.

    Methods that it may override: ``environ``, ``make_connector`` and ``fingerprint``.
    """
