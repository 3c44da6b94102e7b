"""What a caveat of your own needs: a class of `Caveat`, given to issuer, holders and verifiers
in a `Vocabulary`.
"""

from captoken._language.caveats import Caveat, Situation, Vocabulary
from captoken._language.reasons import Reason

__all__ = ["Caveat", "Reason", "Situation", "Vocabulary"]
