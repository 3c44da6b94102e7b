"""Run a command at a terminal where somebody answers its question: `python at_terminal.py ANSWER COMMAND...`.

Standard input and output are those of this program; what the terminal shows comes out on standard error. AHEAD is typed
before the command is there to ask anything; COLUMNS says how wide the terminal is.
"""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

ours, theirs = pty.openpty()
fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, int(os.environ.get("COLUMNS", "80")), 0, 0))
os.write(ours, os.environ.get("AHEAD", "").encode())


def take_the_terminal():
    os.setsid()
    fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)


child = subprocess.Popen(sys.argv[2:], stderr=theirs, preexec_fn=take_the_terminal)
os.close(theirs)
shown, answered = b"", False
try:
    while part := os.read(ours, 65536):
        shown += part
        if b"[y/N]" in shown and not answered:
            answered = True
            os.write(ours, sys.argv[1].encode() + b"\n")
except OSError:  # Linux says so that the other end is closed
    pass
sys.stderr.buffer.write(shown.replace(b"\r\n", b"\n"))
sys.exit(child.wait(60))
