"""What MQTT transports share: topics -> RawPayload. See `topics`.

Law: a topic says which adapter a message is for and which device claims to have sent it. Nothing here decodes a message, and
no topic proves who sent it: a transport that knows hands the device in.
"""
