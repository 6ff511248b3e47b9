"""An Ollama to test against: no GPU, no model, no download. Needs ``pip install "emp-ollama[testing]"``."""

from emp_ollama.testing.models import FakeModel, tiny_models
from emp_ollama.testing.records import Seen
from emp_ollama.testing.server import FakeOllama, Faults

__all__ = ["FakeModel", "FakeOllama", "Faults", "Seen", "tiny_models"]
