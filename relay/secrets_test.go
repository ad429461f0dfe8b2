package relay_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httputil"
	"strings"
	"testing"

	"websocketbridge/relay"
	"websocketbridge/relay/auth"
	"websocketbridge/relay/wire"
)

// Whatever is wrong with a request, and wherever it has its secrets, the log has none of
// them: not by net/http's own words, not by a panic that quotes the request.
func TestSecretsStayOutOfTheLog(t *testing.T) {
	const secret = "c2VjcmV0LXNlY3JldC1zZWNyZXQ"
	inBubble(t, func(c *relay.Config) {
		c.Auth = authFunc(func(r *http.Request) (*auth.Principal, error) {
			switch r.Header.Get("X-Test") {
			case "dump":
				dump, _ := httputil.DumpRequest(r, true)
				panic(string(dump))
			case "struct":
				panic(fmt.Sprintf("%+v", r))
			case "url":
				panic(r.URL)
			case "error":
				return nil, fmt.Errorf("ask %q: %w", "https://idp.example/?access_token="+secret, context.DeadlineExceeded)
			}
			return nil, fmt.Errorf("%w: header Authorization: %s", auth.ErrBadCredentials, r.Header.Get("Authorization"))
		})
	}, func(n *node) {
		query := "deviceId=d&bridgeToken=" + secret + "&signature=" + secret
		header := handshakeHead + "Authorization: Bearer " + secret + "\r\nX-Api-Key: " + secret + "\r\n"
		for i, text := range []string{
			"GET /bridge/connect?" + query + header + "X-Test: dump\r\n\r\n",
			"GET /bridge/connect?" + query + header + "X-Test: struct\r\n\r\n",
			"GET /bridge/connect?" + query + header + "X-Test: url\r\n\r\n",
			"GET /bridge/connect?" + query + header + "X-Test: error\r\n\r\n",
			"GET /bridge/connect?" + query + header + "\r\n",
			"GET /bridge/connect?upgrade=early&" + query + header + "\r\n",
			"GET /bridge/accept?" + query + header + "\r\n",
			"GET /bridge/accept?%zz&" + query + header + "\r\n",
			"POST /bridge/reject?" + query + header + "\r\n",
			"GET /bridge/connectSigned?" + query + header + "\r\n",
			"GET /bridge/getSignedUrl?" + query + header + "\r\n",
			"GET /bridge/accept?" + query + " HTTP/9.9\r\n\r\n",
			"GET /bridge/accept?" + query + " HTTP/1.1\r\nbad header " + secret + "\r\n\r\n",
			"GET /bridge/accept?" + query + " HTTP/1.1\r\nHost: a\r\nHost: b\r\nX-Api-Key: " + secret + "\r\n\r\n",
			"GET /bridge/accept?" + query + " HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: " + secret + "\r\n\r\n",
			"GET /bridge/accept?" + query + " HTTP/1.1\r\nHost: a\r\nContent-Length: x" + secret + "\r\n\r\n",
			"GET /bridge/accept?" + query + "\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
			"GET http://user:" + secret + "@relay.test/bridge/connect?" + query + header + "\r\n",
			"GET /nothing?" + query + header + "\r\n",
			"CONNECT " + secret + ":443 HTTP/1.1\r\nHost: a\r\n\r\n",
		} {
			answer := n.speak(strings.Replace(text, "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1))
			if strings.Contains(answer, secret) && !strings.Contains(answer, "CONNECT") {
				t.Errorf("answer %d has the secret: %q", i, answer)
			}
		}
		if log := n.log.String(); strings.Contains(log, secret) || !strings.Contains(log, "panic") || !strings.Contains(log, wire.ParamBridgeToken+"=[redacted]") {
			t.Errorf("log:\n%s", log)
		}
	})
}
