from itertools import pairwise

from mks_hardening.exceptions import DecodeError
from mks_hardening.security import SecretBox

OWNER = {"user_id": "7", "purpose": "bank-account"}
old, new = SecretBox.generate_key(), SecretBox.generate_key()
boxes = {
    "before": SecretBox([old]),
    "step 1": SecretBox([old, new]),  # MKS_SECRET_KEYS="OLD,NEW": the first encrypts, all decrypt
    "step 2": SecretBox([new, old]),  # MKS_SECRET_KEYS="NEW,OLD"
    "step 3": SecretBox([new]),
}


def can_read(reader: str, writer: str) -> bool:
    stored = boxes[writer].encrypt("DE89 3704", **OWNER)
    try:
        return boxes[reader].decrypt(stored, **OWNER) == "DE89 3704"
    except DecodeError:
        return False


for one, other in [*pairwise(boxes), ("before", "step 2")]:
    print(f"{one} beside {other}:", can_read(one, other) and can_read(other, one))

stored = boxes["before"].encrypt("DE89 3704", **OWNER)
print("to be encrypted again in step 1:", boxes["step 1"].needs_rotation(stored))
print("to be encrypted again in step 2:", boxes["step 2"].needs_rotation(stored))
