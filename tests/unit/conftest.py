"""Fixtures of the unit tests."""

from __future__ import annotations

import pytest
from cisdriver import account, runner
from driver_plays import REGION, Plays


@pytest.fixture
def plays(monkeypatch: pytest.MonkeyPatch) -> Plays:
    """Plays instead of Ansible, and an account nobody needs credentials for."""
    fake = Plays()
    monkeypatch.setattr(runner, "run", fake.run)
    monkeypatch.setattr(account, "region", lambda settings: settings.region or REGION)
    monkeypatch.setattr("shutil.which", lambda program: f"/usr/bin/{program}")
    return fake
