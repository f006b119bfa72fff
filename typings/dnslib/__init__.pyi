"""The part of dnslib that Callboard uses; dnslib itself has no types."""

from collections.abc import Sequence
from typing import Any, Self

class DNSError(Exception): ...
class DNSLabelError(Exception): ...
class BufferError(Exception): ...

class Bimap:
    reverse: dict[str, int]
    forward: dict[int, str]
    def get(self, key: int) -> str: ...
    def __getitem__(self, key: int) -> str: ...
    def __getattr__(self, name: str) -> int: ...

QTYPE: Bimap
RCODE: Bimap
OPCODE: Bimap
CLASS: Bimap
QR: Bimap

class DNSLabel:
    label: tuple[bytes, ...]
    def __init__(self, label: str | bytes | Sequence[bytes]) -> None: ...

class DNSHeader:
    id: int
    opcode: int
    rcode: int
    qr: int
    aa: int
    tc: int
    rd: int
    ra: int
    ad: int
    cd: int
    z: int
    bitmap: int
    def __init__(
        self, id: int | None = None, bitmap: int | None = None, q: int = 0, **flags: int
    ) -> None: ...

class DNSQuestion:
    qname: DNSLabel
    qtype: int
    qclass: int
    def __init__(
        self, qname: str | DNSLabel | None = None, qtype: int = 1, qclass: int = 1
    ) -> None: ...
    def get_qname(self) -> DNSLabel: ...

class RD:
    def __init__(self, *fields: Any) -> None: ...
    def __getattr__(self, name: str) -> Any: ...

class A(RD): ...
class AAAA(RD): ...
class CNAME(RD): ...
class NS(RD): ...
class PTR(RD): ...
class SOA(RD): ...
class SRV(RD): ...
class TXT(RD): ...

class RR:
    rname: DNSLabel
    rtype: int
    rclass: int
    ttl: int
    rdata: Any
    def __init__(
        self,
        rname: str | DNSLabel | None = None,
        rtype: int = 1,
        rclass: int = 1,
        ttl: int = 0,
        rdata: Any = None,
    ) -> None: ...
    @classmethod
    def fromZone(cls, zone: str, origin: str = "", ttl: int = 0) -> list[RR]: ...

class EDNSOption:
    code: int
    data: bytes
    def __init__(self, code: int, data: bytes) -> None: ...

class EDNS0(RR):
    def __init__(
        self,
        rname: str | None = None,
        rtype: int = 41,
        ext_rcode: int = 0,
        version: int = 0,
        flags: str = "",
        udp_len: int = 0,
        opts: Sequence[EDNSOption] | None = None,
    ) -> None: ...

class DNSRecord:
    header: DNSHeader
    questions: list[DNSQuestion]
    rr: list[RR]
    auth: list[RR]
    ar: list[RR]
    q: DNSQuestion
    a: RR
    def __init__(
        self,
        header: DNSHeader | None = None,
        questions: list[DNSQuestion] | None = None,
        rr: list[RR] | None = None,
        q: DNSQuestion | None = None,
        a: RR | None = None,
        auth: list[RR] | None = None,
        ar: list[RR] | None = None,
    ) -> None: ...
    @classmethod
    def parse(cls, packet: bytes) -> Self: ...
    @classmethod
    def question(cls, qname: str, qtype: str = "A", qclass: str = "IN") -> Self: ...
    def reply(self, ra: int = 1, aa: int = 1) -> DNSRecord: ...
    def add_question(self, *questions: DNSQuestion) -> None: ...
    def add_answer(self, *rr: RR) -> None: ...
    def add_auth(self, *auth: RR) -> None: ...
    def add_ar(self, *ar: RR) -> None: ...
    def pack(self) -> bytearray: ...
    def send(
        self, dest: str, port: int = 53, tcp: bool = False, timeout: float | None = None
    ) -> bytes: ...
    def get_q(self) -> DNSQuestion: ...
