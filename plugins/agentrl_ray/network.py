"""Which of a node's network interfaces the others reach it by."""

import socket
import struct
import sys

_SIOCGIFADDR = 0x8915  # of Linux: asks an interface for its address


def interface_of(address: str) -> str | None:
    """Return the name of the interface with an IPv4 address, None if that cannot be found out."""
    if not sys.platform.startswith("linux"):
        return None
    for _, name in socket.if_nameindex():
        if _address_of(name) == address:
            return name
    return None


def _address_of(interface: str) -> str | None:
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        request = struct.pack("256s", interface.encode()[:15])
        try:
            answer = fcntl.ioctl(asking.fileno(), _SIOCGIFADDR, request)
        except OSError:  # it has none
            return None
    return socket.inet_ntoa(answer[20:24])
