"""Suites that an author subclasses: what the core relies on, checked against a connector, a store, an installer, a balancer.

Each suite is a class of tests. A subclass gives a fixture or two and says by class attributes what else it offers; a rule
that needs what is not offered is skipped, with words that say what to give. The suites need the extra
``emp-core[testing]`` and run in anyio's pytest plugin, which comes with anyio; nothing has to be set for it.

    from emp_core.testing.conformance.store import StoreConformance

    class TestMyStore(StoreConformance):
        @pytest.fixture
        def make_store(self, tmp_path):
            return lambda: MyStore(tmp_path)
"""
