"""For all tests."""

from hypothesis import HealthCheck, settings

# An example takes as long as the machine happens to take; nothing here is judged by that.
settings.register_profile("triptych", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("triptych")
