"""Live control: restrict and stop what is out, see what stands, call back what was handed on."""

from captoken._language.overlay import Entry, Overlay, Selector
from captoken.control._recall import ControlPlane, recall
from captoken.control.feed import Feed
from captoken.control.operator import Operator

__all__ = ["ControlPlane", "Entry", "Feed", "Operator", "Overlay", "Selector", "recall"]
