"""Routes of newer servers: prompts as jobs, without their workflows, and cancelling by id whatever they do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from emp_comfyui.testing.records import InterruptRecord

if TYPE_CHECKING:
    from emp_comfyui.testing.prompt_queue import Item
    from emp_comfyui.testing.server import FakeComfyUI

_STATUSES = ("pending", "in_progress", "completed", "failed", "cancelled")


class JobRoutes:
    """Handlers of ``/api/jobs``: these are only there under ``/api``."""

    def __init__(self, server: FakeComfyUI) -> None:
        """For one server."""
        self._server = server

    def routes(self) -> list[web.RouteDef]:
        """The routes that this version has."""
        can = self._server.capabilities
        routes = []
        if can.jobs:
            routes += [web.get("/api/jobs", self.jobs), web.get("/api/jobs/{job_id}", self.job)]
        if can.cancel_by_id:
            routes.append(web.post("/api/jobs/{job_id}/cancel", self.cancel))
        return routes

    async def jobs(self, request: web.Request) -> web.Response:
        """All jobs, or those of some statuses."""
        wanted = [one.strip() for one in request.query.get("status", "").split(",") if one.strip()] or list(_STATUSES)
        unknown = [one for one in wanted if one not in _STATUSES]
        if unknown:
            return web.json_response({"error": f"Invalid status value(s): {', '.join(unknown)}"}, status=400)
        found = [job for job in self._all() if job["status"] in wanted]
        pagination = {"offset": 0, "limit": None, "total": len(found), "has_more": False}
        return web.json_response({"jobs": found, "pagination": pagination})

    async def job(self, request: web.Request) -> web.Response:
        """One job, or 404."""
        found = next((job for job in self._all() if job["id"] == request.match_info["job_id"]), None)
        return web.json_response(found or {"error": "Job not found"}, status=200 if found else 404)

    async def cancel(self, request: web.Request) -> web.Response:
        """Take a waiting prompt out, or interrupt it if it runs. The answer is 200 whatever happens."""
        prompt_id = request.match_info["job_id"]
        runs = prompt_id in {item[1] for item in self._server.queue.running}
        if runs:
            effective = not self._server.lose_interrupt()
            if effective:
                self._server.interrupts_flag.requested = True
            self._server.interrupts.append(InterruptRecord(prompt_id, effective))
        return web.json_response({"cancelled": runs or self._server.queue.delete(prompt_id)})

    def _all(self) -> list[dict[str, Any]]:
        queue = self._server.queue
        ended = [{"id": prompt_id, "status": _ending(entry)} for prompt_id, entry in queue.history.items()]
        running = [_shown(item, "in_progress") for item in queue.running]
        return [*running, *(_shown(item, "pending") for item in queue.pending), *ended]


def _shown(item: Item, status: str) -> dict[str, Any]:
    return {"id": item[1], "status": status, "priority": item[0], "outputs_count": 0}


def _ending(entry: dict[str, Any]) -> str:
    if entry["status"]["status_str"] == "success":
        return "completed"
    return "cancelled" if entry["status"]["messages"][-1][0] == "execution_interrupted" else "failed"
