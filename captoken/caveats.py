"""Define caveats of your own: subclass `Caveat`, and list the classes in a `Vocabulary`.

Give the vocabulary to issuer, holders and verifiers.
"""

from captoken._language.caveats import Caveat, Situation, Vocabulary
from captoken._language.reasons import Reason

__all__ = ["Caveat", "Reason", "Situation", "Vocabulary"]
