package hub_test

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/amenzhinsky/iothub/iotservice"
	"github.com/amenzhinsky/iothub/logger"

	"websocketbridge/test/netfault"
)

// callRaw calls any method with any payload and returns the device's status.
func (l *agentLab) callRaw(name, payload string) int {
	l.Helper()
	token, err := l.credential().Token(l.ctx())
	if err != nil {
		l.Fatal(err)
	}
	body := fmt.Sprintf(`{"methodName":%q,"responseTimeoutInSeconds":30`, name)
	if payload != "" {
		body += `,"payload":` + payload
	}
	url := "https://" + l.hub.HTTPSAddr() + "/twins/" + agentDevice + "/methods?api-version=2021-04-12"
	req, err := http.NewRequestWithContext(l.ctx(), http.MethodPost, url, strings.NewReader(body+"}"))
	if err != nil {
		l.Fatal(err)
	}
	req.Header.Set("Authorization", token.Text)
	transport := &http.Transport{TLSClientConfig: l.trust.Clone(), Proxy: netfault.NoProxy}
	transport.TLSClientConfig.ServerName = l.hub.HostName()
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		l.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		l.Fatal(err)
	}
	var answer struct {
		Status  int
		Payload struct{ Code, Message string }
	}
	if err := json.Unmarshal(b, &answer); err != nil || resp.StatusCode != http.StatusOK {
		l.Fatalf("%s: %s %s", name, resp.Status, b)
	}
	if answer.Status >= 400 && (answer.Payload.Code == "" || answer.Payload.Message == "") {
		l.Errorf("%s: an answer without words: %s", name, bytes.TrimSpace(b))
	}
	return answer.Status
}

// sendRaw sends any message to the device, by another maker's client.
func (l *agentLab) sendRaw(id, body string, properties map[string]string) {
	l.Helper()
	_, port, _ := strings.Cut(l.hub.AMQPAddr(), ":")
	host := l.hub.HostName()
	text := strings.Replace(l.hub.ServiceConnectionString("service"), "HostName="+host, "HostName="+host+":"+port, 1)
	c, err := iotservice.NewFromConnectionString(text, iotservice.WithTLSConfig(&tls.Config{RootCAs: l.hub.RootCAs(), ServerName: host}),
		iotservice.WithLogger(logger.New(logger.LevelOff, nil)))
	if err != nil {
		l.Fatal(err)
	}
	defer c.Close()
	if err := c.SendEvent(l.ctx(), agentDevice, []byte(body), iotservice.WithSendMessageID(id),
		iotservice.WithSendProperties(properties), iotservice.WithSendExpiryTime(time.Now().Add(time.Minute))); err != nil {
		l.Fatal(err)
	}
}
