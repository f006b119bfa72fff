"""Another name server, as a company has one: it resolves www.example.org and nothing of ours.

`python -m tests.support.elsewhere ADDRESS` serves UDP and TCP at port 53 until it is killed.
"""

import socket
import struct
import sys
import threading

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

NAME = "www.example.org."
ADDRESS = "192.0.2.80"


def answer(packet: bytes) -> bytes:
    """What a resolver says that knows NAME alone."""
    question = dns.message.from_wire(packet)
    reply = dns.message.make_response(question, recursion_available=True)
    (asked,) = question.question
    soa = "ns.example.org. hostmaster.example.org. 1 3600 600 86400 5"
    if asked.name.to_text().lower() != NAME:
        reply.set_rcode(dns.rcode.NXDOMAIN)
        reply.authority.append(dns.rrset.from_text(".", 5, "IN", "SOA", soa))
    elif asked.rdtype == dns.rdatatype.A:
        reply.answer.append(dns.rrset.from_text(asked.name, 5, "IN", "A", ADDRESS))
    else:
        reply.authority.append(dns.rrset.from_text("example.org.", 5, "IN", "SOA", soa))
    return reply.to_wire()


def serve_tcp(listening: socket.socket) -> None:
    """One question of each connection."""
    while True:
        connection, _ = listening.accept()
        with connection, connection.makefile("rb") as stream:
            (size,) = struct.unpack("!H", stream.read(2).rjust(2, b"\0"))
            if size:
                reply = answer(stream.read(size))
                connection.sendall(struct.pack("!H", len(reply)) + reply)


def main(address: str) -> None:
    """Serve for ever."""
    listening = socket.create_server((address, 53))
    threading.Thread(target=serve_tcp, args=(listening,), daemon=True).start()
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind((address, 53))
    while True:
        packet, sender = datagrams.recvfrom(4096)
        datagrams.sendto(answer(packet), sender)


if __name__ == "__main__":
    main(sys.argv[1])
