"""Evidence that a third party can check: a bundle of a finished audit, and what checks it."""

from expunge.studies.evidence.bundle import make_bundle
from expunge.studies.evidence.verify import verify_bundle

__all__ = ["make_bundle", "verify_bundle"]
