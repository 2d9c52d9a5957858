"""Every kind of task, in the order of its difficulty."""

from ..scenario import Scenario
from .address import Address
from .alarm import Alarm
from .approve import Approve
from .contact import ContactNumber
from .errands import Errands
from .file_read import FileRead
from .file_remove import FileRemove
from .note_pin import NotePin
from .note_write import NoteWrite
from .pay import Pay
from .pay_list import PayList
from .song import SongSave
from .star import Star
from .text import Text
from .tick import Tick
from .tidy import Tidy

KINDS: tuple[Scenario, ...] = (
    Address(),
    Alarm(),
    FileRead(),
    FileRemove(),
    NoteWrite(),
    Pay(),
    Text(),
    ContactNumber(),
    NotePin(),
    SongSave(),
    Star(),
    Tick(),
    Approve(),
    Errands(),
    PayList(),
    Tidy(),
)
