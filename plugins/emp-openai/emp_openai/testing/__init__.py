"""A server that speaks OpenAI's API, to test against: no key, no money. Needs ``pip install "emp-openai[testing]"``."""

from emp_openai.testing.server import FakeOpenAI, Faults, Seen

__all__ = ["FakeOpenAI", "Faults", "Seen"]
