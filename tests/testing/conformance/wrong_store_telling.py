"""Stores that are wrong in one way each, in what they tell. ``breaks`` names the rule that has to say so."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, ClassVar
from urllib.parse import quote

from attrs import evolve

from emp_core.storage.interface import StoredObject
from emp_core.storage.names import safe_key

from .kept import Data, KeptStore


class KnowsNoPictures(KeptStore):
    """Knows no picture's media type."""

    breaks: ClassVar = "test_what_is_known_of_a_file_is_kept_with_it"

    async def put(self, key: str, data: Data, *, media_type: str, **how: Any) -> StoredObject:
        known = "application/octet-stream" if media_type.startswith("image/") else media_type
        return await super().put(key, data, media_type=known, **how)


class OnceKeptForEver(KeptStore):
    """Keeps a name's retention class when its file is replaced."""

    breaks: ClassVar = "test_what_is_known_follows_an_overwrite"

    async def put(
        self, key: str, data: Data, *, overwrite: bool = False, retention: str | None = None, **how: Any
    ) -> StoredObject:
        if overwrite and retention is None and await self.is_there(key):
            retention = (await self.stat(key)).retention
        return await super().put(key, data, overwrite=overwrite, retention=retention, **how)


class ListsQuoted(KeptStore):
    """Lists names as they stand in URLs."""

    breaks: ClassVar = "test_odd_names_are_told_as_they_are"

    async def list_objects(
        self, prefix: str = "", *, stored_before: datetime | None = None
    ) -> AsyncIterator[StoredObject]:
        async for one in super().list_objects(prefix, stored_before=stored_before):
            yield evolve(one, key=quote(one.key))


class ListsFolders(KeptStore):
    """Takes a prefix for a folder."""

    breaks: ClassVar = "test_what_was_put_is_listed"

    async def list_objects(
        self, prefix: str = "", *, stored_before: datetime | None = None
    ) -> AsyncIterator[StoredObject]:
        folder = f"{prefix.rstrip('/')}/" if prefix else ""
        async for one in super().list_objects(folder, stored_before=stored_before):
            yield one


class Ageless(KeptStore):
    """Lists what is young, too."""

    breaks: ClassVar = "test_a_listing_can_be_bounded_by_age"

    async def list_objects(self, prefix: str = "", *, stored_before: Any = None) -> AsyncIterator[StoredObject]:
        async for one in super().list_objects(prefix):
            yield one


class CountsWhileListing(KeptStore):
    """Goes on at the next number, and passes over what moved up."""

    breaks: ClassVar = "test_a_listing_may_be_deleted_while_it_is_read"

    async def list_objects(
        self, prefix: str = "", *, stored_before: datetime | None = None
    ) -> AsyncIterator[StoredObject]:
        number = 0
        while number < len(found := [one async for one in super().list_objects(prefix, stored_before=stored_before)]):
            yield found[number]
            number += 1


class SignsNothing(KeptStore):
    """Gives an address that nobody else can use."""

    breaks: ClassVar = "test_a_signed_address_is_one_for_everybody_or_there_is_none"

    async def sign(self, key: str, *, expires_in_s: float) -> str:  # type: ignore[override]
        return f"file://{self.root / safe_key(key)}?until={expires_in_s}"
