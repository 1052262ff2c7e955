"""Verify the effect of a removal by retraining."""

from engine.applications.verification.predicted_actual import agreement, predicted_and_actual
from engine.applications.verification.record import Outcome, Verification, read_verifications
from engine.applications.verification.verifying import verify, verify_all

__all__ = [
    "Outcome",
    "Verification",
    "agreement",
    "predicted_and_actual",
    "read_verifications",
    "verify",
    "verify_all",
]
