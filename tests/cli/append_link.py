"""Append the link on standard input to the token in a file, by hand: what any holder can do who leaves the library out.

With `asks` behind the file, a third-party caveat whose box nobody can open.
"""

import base64
import hmac
import sys
from pathlib import Path


def varint(size):
    return bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])


text = Path(sys.argv[1]).read_text().strip().removeprefix("cap1_")
data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
tag, link = data[-32:], sys.stdin.buffer.read()
section = b"\2" + varint(len(link)) + link
if sys.argv[2:] == ["asks"]:
    vid = bytes(72)
    section += b"\4\x48" + vid
    tag = hmac.digest(tag, hmac.digest(tag, vid, "sha256") + hmac.digest(tag, link, "sha256"), "sha256")
else:
    tag = hmac.digest(tag, link, "sha256")
data = data[:-35] + section + b"\0\0\6\x20" + tag
print("cap1_" + base64.urlsafe_b64encode(data).rstrip(b"=").decode())
