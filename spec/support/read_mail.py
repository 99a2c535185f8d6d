"""What Python's email package (modern policy) reads in messages: an independent reader.

    python3 read_mail.py FORM FILE...        FORM: utf8, or encoded

Prints lines of words; values are UTF-8 in hexadecimal, "-" for an empty one:

    message FILE
    field NAME VALUE                 as decoded, for each field in order
    address FIELD NAME ADDRESS       for each mailbox of the address fields
    group FIELD NAME                 for each named group
    part PATH TYPE DISPOSITION FILENAME CONTENT-ID CONTENT
    defect TEXT

Names in encoded words are read by decode_header: in phrases, the parser behind the modern policy
keeps the blanks between two of them in some versions, against RFC 2047, 6.2. A multipart's content
is empty; that of text/plain and text/html is the text, that of message/* what the inner message is
as bytes, and all other content is its octets.
"""
import email
import email.header
import email.policy
import email.utils
import sys


def word(value):
    if value is None:
        value = ""
    if isinstance(value, str):
        value = value.encode("utf-8", "surrogateescape")
    return value.hex() or "-"


def content(part):
    kind = part.get_content_type()
    if part.get_content_maintype() == "message":
        inner = part.get_payload(decode=True) or part.get_payload(0).as_bytes()
        return inner
    if kind in ("text/plain", "text/html") and not part.is_attachment():
        return part.get_content()
    return part.get_payload(decode=True)


def show_part(part, path):
    is_multipart = part.get_content_maintype() == "multipart"
    print("part", path, part.get_content_type(), part.get_content_disposition() or "-",
          word(part.get_filename()), word(part["Content-ID"]),
          "-" if is_multipart else word(content(part)))
    for defect in part.defects:
        print("defect", word(repr(defect)))
    if is_multipart:
        for index, inner in enumerate(part.iter_parts(), 1):
            show_part(inner, "%s.%d" % (path, index))


def decoded_names(raw):
    pairs = email.utils.getaddresses([raw.replace("\r\n", "").replace("\n", "")])
    return [str(email.header.make_header(email.header.decode_header(name))) for name, _ in pairs]


def show_addresses(name, value, raw):
    addresses = [address for group in value.groups for address in group.addresses]
    names = [address.display_name for address in addresses]
    if "=?" in raw:
        names = decoded_names(raw)
    for address, display in zip(addresses, names, strict=True):
        print("address", name, word(display), word(address.addr_spec))
    for group in value.groups:
        if group.display_name is not None:
            print("group", name, word(group.display_name))


def show(message):
    raw = dict(message.raw_items())
    for name, value in message.items():
        print("field", name, word(str(value)))
        for defect in getattr(value, "defects", ()):
            print("defect", word("%s: %r" % (name, defect)))
        if hasattr(value, "groups"):
            show_addresses(name, value, raw[name])
    show_part(message, "1")


def main(arguments):
    policy = email.policy.default
    is_utf8 = arguments[0] == "utf8"
    for path in arguments[1:]:
        with open(path, "rb") as file:
            octets = file.read()
        print("message", path)
        if is_utf8:
            show(email.message_from_string(octets.decode("utf-8"), policy=policy))
        else:
            show(email.message_from_bytes(octets, policy=policy))


main(sys.argv[1:])
