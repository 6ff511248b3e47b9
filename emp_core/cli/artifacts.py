"""`emp artifacts`: what jobs have put out, in the stores where it is kept."""

from collections.abc import Sequence
from pathlib import Path

import click

from emp_core.cli.failures import DONE
from emp_core.cli.hub import prepared
from emp_core.cli.interruptible import run_async
from emp_core.cli.output import clean, emit, json_option, note
from emp_core.cli.pruning import prune_command
from emp_core.cli.stores import age_of, counted, described, listing, open_store, store_option
from emp_core.errors import ArtifactNotFound
from emp_core.inputs.artifacts import find_artifact
from emp_core.storage.interface import ArtifactStore, StoredObject
from emp_core.storage.names import own_name

__all__ = ["artifacts"]


@click.group()
def artifacts() -> None:
    """List what jobs have put out, fetch it, give addresses of it, and delete it.

    \b
    Examples:
      emp artifacts ls 01M7Y3SW00C16K7V193XFACAW2/
      emp artifacts get 01M7Y3SW00C16K7V193XFACAW2/1-0-hello.txt --output results
      emp artifacts url 01M7Y3SW00C16K7V193XFACAW2/1-0-hello.txt --expires 1h
      emp artifacts prune --dry-run
    """


@artifacts.command()
@click.argument("prefix", required=False, default="", metavar="[PREFIX]")
@store_option
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=50, show_default=True, help="At most so many.")
@json_option
def ls(prefix: str, store_name: str, limit: int, as_json: bool) -> int:
    """List artifacts whose names begin with PREFIX, in the store's own order.

    \b
    Examples:
      emp artifacts ls
      emp artifacts ls 01M7Y3SW00C16K7V193XFACAW2/ --json
      emp artifacts ls --store final shots/
    """

    async def run() -> int:
        found: list[StoredObject] = []
        async with open_store(prepared(), store_name) as store:
            async for one in store.list_objects(prefix):
                if len(found) == limit:
                    if not as_json:
                        note(f"There are more; --limit {limit * 10} shows ten times as many.")
                    break
                found.append(one)
        emit([described(one) for one in found], lambda: listing(found), as_json=as_json)
        return DONE

    return run_async(run)


@artifacts.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@store_option
@click.option(
    "--output",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=".",
    show_default=True,
    metavar="DIR",
    help="The folder to copy into.",
)
@json_option
def get(names: tuple[str, ...], store_name: str, folder: Path, as_json: bool) -> int:
    """Copy artifacts into a folder. NAME is an artifact's name, or its URL as a job's result tells it.

    What is in the folder already is not replaced: a file of the same name with other content gets a number.

    \b
    Examples:
      emp artifacts get 01M7Y3SW00C16K7V193XFACAW2/1-0-hello.txt
      emp artifacts get --store final shots/010/01M7Y3SW00C16K7V193XFACAW2/1-0-hero.png --output results
    """
    from emp_core.cli.saving import check_folder, save_stream

    check_folder(folder)

    async def run() -> int:
        async with open_store(prepared(), store_name) as store:
            found = await _all_of(store, names)
            paths = [
                await save_stream(store.open(one.key), folder, own_name(one.key), sha256=one.sha256) for one in found
            ]
        shown = [{**described(one), "path": str(path)} for one, path in zip(found, paths, strict=True)]
        emit(shown, "\n".join(map(str, paths)), as_json=as_json)
        return DONE

    return run_async(run)


@artifacts.command()
@click.argument("key", metavar="NAME")
@store_option
@click.option("--expires", callback=age_of, metavar="AGE", help="Sign the address; it holds so long: 90m, 7d.")
@json_option
def url(key: str, store_name: str, expires: float | None, as_json: bool) -> int:
    """Print the address of an artifact: its own, or one by which anybody can read it for a while.

    \b
    Examples:
      emp artifacts url 01M7Y3SW00C16K7V193XFACAW2/1-0-hello.txt
      emp artifacts url 01M7Y3SW00C16K7V193XFACAW2/1-0-hello.txt --expires 1h
    """

    async def run() -> int:
        async with open_store(prepared(), store_name) as store:
            stored = await store.stat(key)
            address = stored.url if expires is None else await store.sign(key, expires_in_s=expires)
        emit({**described(stored), "url": address}, address, as_json=as_json)
        return DONE

    return run_async(run)


@artifacts.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@store_option
@json_option
def rm(names: tuple[str, ...], store_name: str, as_json: bool) -> int:
    """Delete artifacts. NAME is an artifact's name, or its URL as a job's result tells it.

    Nothing is deleted when one of them is not there, or was not stored by a worker.

    \b
    Examples:
      emp artifacts rm 01M7Y3SW00C16K7V193XFACAW2/1-0-hello.txt
    """

    async def run() -> int:
        async with open_store(prepared(), store_name) as store:
            found = await _all_of(store, names)
            for one in found:
                await store.delete(one.key)
        emit([described(one) for one in found], "", as_json=as_json)
        if not as_json:
            note(f"Deleted {counted(len(found))}.")
        return DONE

    return run_async(run)


artifacts.add_command(prune_command)


async def _all_of(store: ArtifactStore, names: Sequence[str]) -> list[StoredObject]:
    """What the store knows of these artifacts; each once.

    Raises:
        ArtifactNotFound: one of them is not there.
    """
    found: dict[str, StoredObject] = {}
    for name in names:
        one = await find_artifact(store, name)
        if one is None or not one.sha256:
            raise ArtifactNotFound(f"there is no artifact {clean(name)[:300]}", hint="see `emp artifacts ls`")
        found[one.key] = one
    return list(found.values())
