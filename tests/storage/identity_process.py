"""A program that uses a container by the identity of its machine, as a worker on Azure does."""

import sys

import anyio
from azure.core.credentials import AzureNamedKeyCredential
from azure.storage.blob.aio import BlobServiceClient

from emp_core.storage.azure import AzureStore
from emp_core.storage.azure_access import EMULATOR


async def main(endpoint: str) -> None:
    account = EMULATOR["AccountName"]
    async with BlobServiceClient(endpoint, AzureNamedKeyCredential(account, EMULATOR["AccountKey"])) as service:
        await service.create_container("art")
    store = AzureStore.from_url(
        "azure://art/x", {"AZURE_STORAGE_ACCOUNT": account, "AZURE_STORAGE_SERVICE_ENDPOINT": endpoint}
    )
    await store.check()
    await store.put("a.txt", b"hello", media_type="text/plain")
    read = b"".join([chunk async for chunk in store.open("a.txt")])
    signed = await store.sign("a.txt", expires_in_s=60)
    await store.delete("a.txt")
    await store.aclose()
    print(read.decode(), [one.key async for one in store.list_objects()], "sktid=" in signed, repr(store))
    await store.aclose()


anyio.run(main, sys.argv[1])
