package mqtt

import (
	"bytes"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// encode cannot fail: it writes to memory.
func encode(p packets.ControlPacket) []byte {
	var b bytes.Buffer
	p.Write(&b)
	return b.Bytes()
}

func encodeConnack(code Code, sessionPresent bool) []byte {
	p := packets.NewControlPacket(packets.Connack).(*packets.ConnackPacket)
	p.ReturnCode = byte(code)
	p.SessionPresent = sessionPresent && code == Accepted
	return encode(p)
}

func encodeSuback(id uint16, granted []byte) []byte {
	p := packets.NewControlPacket(packets.Suback).(*packets.SubackPacket)
	p.MessageID, p.ReturnCodes = id, granted
	return encode(p)
}

func encodeUnsuback(id uint16) []byte {
	p := packets.NewControlPacket(packets.Unsuback).(*packets.UnsubackPacket)
	p.MessageID = id
	return encode(p)
}

func encodePuback(id uint16) []byte {
	p := packets.NewControlPacket(packets.Puback).(*packets.PubackPacket)
	p.MessageID = id
	return encode(p)
}

func encodePublish(m Message, id uint16) []byte {
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.TopicName, p.Payload, p.Qos, p.Retain, p.Dup, p.MessageID = m.Topic, m.Payload, m.QoS, m.Retain, m.Dup, id
	return encode(p)
}

// dupFlag is in the first byte of a PUBLISH.
const dupFlag = 1 << 3
