"""`StoreConformance`: what every artifact store keeps to."""

from emp_core.testing.conformance.store_base import ListPlace, MakeStore
from emp_core.testing.conformance.store_care import CareRules
from emp_core.testing.conformance.store_files import FileRules
from emp_core.testing.conformance.store_telling import TellingRules

__all__ = ["ListPlace", "MakeStore", "StoreConformance"]


class StoreConformance(FileRules, TellingRules, CareRules):
    """The rules of `ArtifactStore`. A subclass gives the fixture ``make_store``::

        class TestMyStore(StoreConformance):
            @pytest.fixture
            def make_store(self, tmp_path):
                return lambda: MyStore(tmp_path)

    and may give more:

    Attributes:
        secrets: texts that no repr, error, address or log may hold: the account key that ``make_store`` hands over.
        can_sign: whether there are signed addresses: URLs by which anybody can read a file over HTTP.
        big_bytes: length of the stream for which memory is measured.
        memory_bytes: what putting it, and reading it again, may take of this process's memory.

    Fixtures that it may give: ``make_broken_store``, as ``make_store``, for a place that cannot be reached or written now;
    ``list_place``, an async function that lists what lies in the place, unfinished uploads included, without the store.
    """
