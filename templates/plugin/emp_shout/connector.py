"""Speaks to the service: a text goes in by `POST /run`, the same text in capital letters comes out."""

from attrs import asdict, field, frozen, validators
from emp_core import HTTPConnector, Job, JobContext, JobResult, ServiceConfig
from emp_core.config import load_settings

from emp_shout.settings import ShoutSettings

__all__ = ["ShoutConnector", "ShoutPayload"]


@frozen
class ShoutPayload:
    """What a job asks for.

    Attributes:
        text: what is said.
        times: how often.
    """

    text: str = field(validator=validators.min_len(1))
    times: int = field(default=1, validator=[validators.ge(1), validators.le(100)])


@frozen
class Answer:
    """What the service answers."""

    text: str


class ShoutConnector(HTTPConnector):
    """Runs a job with one request. Stopping the job closes the connection, and that stops the service's work."""

    service_type = "shout"
    version = "0.1.0"
    max_concurrent_jobs = 4
    payload_class = ShoutPayload
    health_path = "/health"

    def __init__(self, config: ServiceConfig) -> None:
        self.settings = load_settings(ShoutSettings, config.environ)
        super().__init__(config, base_url=self.settings.url)

    def make_headers(self) -> dict[str, str]:
        """The headers of every request, with the key if there is one."""
        key = self.settings.api_key
        return super().make_headers() | ({"authorization": f"Bearer {key}"} if key else {})

    async def process_job(self, job: Job, context: JobContext) -> JobResult:
        """Run one job."""
        payload: ShoutPayload = context.payload
        silence_s = self.settings.silence_s
        answer = await self.request_as(Answer, "POST", "/run", json=asdict(payload), silence_s=silence_s)
        artifact = await context.save(answer.text.encode(), "answer.txt", "text/plain; charset=utf-8")
        return JobResult({"text": answer.text}, artifacts=(artifact,))
