package hub

import (
	"context"
	"net/url"
	"strings"
	"time"

	"websocketbridge/signaler/sas"
)

const (
	apiVersion = "2021-04-12"
	clientType = "websocketbridge/deviceagent" // who a hub's owner sees in its diagnostics
)

// clientID and username are those of Microsoft Learn, "Communicate with an IoT hub
// using the MQTT protocol". IDs are not escaped in them, as in no SDK.
func (c Config) clientID() string { return c.name() }

func (c Config) username() string {
	return c.HostName + "/" + c.name() + "/?api-version=" + apiVersion + "&DeviceClientType=" + url.QueryEscape(clientType)
}

// password is a shared access signature for this identity and nothing else, and
// when it expires; none with a certificate, and no expiry if it is not known.
func (c Config) password(ctx context.Context, now time.Time) (text string, expires time.Time, err error) {
	switch {
	case c.Certificate != nil:
		return "", time.Time{}, nil
	case c.Token != nil:
		return c.Token(ctx)
	}
	// Signatures count in whole seconds. Rounded up, a short life is not over at once.
	expires = now.Add(c.TokenLife + time.Second - 1).Truncate(time.Second)
	text, err = sas.Sign(sas.Resource(c.HostName, c.DeviceID, c.ModuleID), c.KeyName, c.Key, expires)
	return text, expires, err
}

const methodFilter = "$iothub/methods/POST/#"

// filters are what to subscribe to, and with which QoS. See the package comment.
func (c Config) filters() []filter {
	f := []filter{{methodFilter, 0}}
	if c.ModuleID == "" { // officially, modules get no messages
		f = append(f, filter{"devices/" + escapeID(c.DeviceID) + "/messages/devicebound/#", 1})
	}
	return f
}

type filter struct {
	topic string
	qos   byte
}

// escapeID makes an ID a level of a topic: + and # in it would be wildcards, which
// end the connection. Letters, digits, - . _ stay, so most IDs are as they were.
func escapeID(id string) string { return strings.ReplaceAll(url.QueryEscape(id), "+", "%20") }
