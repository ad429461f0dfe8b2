package main

import (
	"cmp"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"slices"
	"strings"

	"websocketbridge/relay/ws"
	"websocketbridge/signaler/credential"
	"websocketbridge/signaler/entra"
	"websocketbridge/signaler/method"
)

// The signalers. Their names are settings.
const (
	viaC2D    = "c2d"
	viaMethod = "method"
	viaAuto   = "auto"
	viaFake   = "fake"
)

// hubSettings are RELAY_HUB_*: which hub, who the relay is there, and how to get there.
type hubSettings struct {
	ConnectionString string `envconfig:"CONNECTION_STRING" secret:"true" desc:"of a policy with ServiceConnect, such as service; instead of RELAY_HUB_HOST and an identity of Entra ID"`
	Host             string `envconfig:"HOST" example:"hub.azure-devices.net" desc:"the hub's name"`

	Credential          string `envconfig:"CREDENTIAL" example:"managed-identity" desc:"who the relay is: connection-string, managed-identity, workload-identity, client-secret, client-certificate, azure-cli"`
	TenantID            string `envconfig:"TENANT_ID" desc:"directory of the identity"`
	ClientID            string `envconfig:"CLIENT_ID" desc:"of the app registration, or which managed identity"`
	ClientSecret        string `envconfig:"CLIENT_SECRET" secret:"true" desc:"of client-secret"`
	ClientCertificate   string `envconfig:"CLIENT_CERTIFICATE" desc:"PEM or PFX file with certificate and key, of client-certificate"`
	CertificatePassword string `envconfig:"CLIENT_CERTIFICATE_PASSWORD" secret:"true" desc:"of the PFX file, if it has one"`
	FederatedToken      string `envconfig:"FEDERATED_TOKEN" desc:"file with the token of workload-identity; default: AZURE_FEDERATED_TOKEN_FILE"`
	Authority           string `envconfig:"AUTHORITY" example:"https://login.chinacloudapi.cn" desc:"where tokens of Entra ID come from; default: the public cloud"`

	Module string  `envconfig:"MODULE" example:"bridge" desc:"module of each device where its agent listens, for direct methods; default: the device itself"`
	Tier   string  `envconfig:"TIER" default:"S1" desc:"F1, S1, S2 or S3"`
	Units  int     `envconfig:"UNITS" default:"1" desc:"how many of the tier the hub has"`
	Rate   float64 `envconfig:"RATE" default:"0" desc:"direct methods a second that this node calls at most; 0: 80 % of what tier and units allow"`

	WebSocket bool   `envconfig:"WEBSOCKET" desc:"messages over port 443, for networks that let 5671 not out; heeds HTTPS_PROXY"`
	Feedback  bool   `envconfig:"FEEDBACK" desc:"log what became of each message"`
	CAFile    string `envconfig:"CA_FILE" desc:"PEM file with certificates to trust besides the system's, for gateways and emulators"`
	AMQPAddr  string `envconfig:"AMQP_ADDR" desc:"host:port to dial for messages instead of the hub's name"`
	HTTPSAddr string `envconfig:"HTTPS_ADDR" desc:"host:port to dial for direct methods instead of the hub's name"`
}

// hub is what hubSettings mean.
type hub struct {
	name, amqpAddr, httpsAddr string
	credential                credential.Source
	signer                    *credential.Signer // is credential; nil: that is another kind
	gateway                   string             // of the connection string
	renew                     func()             // tells the signaler that signer has another key; nil: it needs not know
	owner                     bool               // the policy may do everything
	tls                       *tls.Config
	rate                      float64
	burst                     int
}

// complain reports a fault of the variable RELAY_ and name.
type complain func(name, format string, args ...any)

// users tells which signalers a setting is for. RELAY_HUB_TIER and RELAY_HUB_UNITS are
// facts about a hub, so they may be set for any that has one.
var users = []struct {
	name string
	of   []string
}{
	{"HUB_CONNECTION_STRING", anyHub}, {"HUB_HOST", anyHub}, {"HUB_CREDENTIAL", anyHub}, {"HUB_TENANT_ID", anyHub}, {"HUB_CLIENT_ID", anyHub},
	{"HUB_CLIENT_SECRET", anyHub}, {"HUB_CLIENT_CERTIFICATE", anyHub}, {"HUB_CLIENT_CERTIFICATE_PASSWORD", anyHub},
	{"HUB_FEDERATED_TOKEN", anyHub}, {"HUB_AUTHORITY", anyHub}, {"HUB_TIER", anyHub}, {"HUB_UNITS", anyHub}, {"HUB_CA_FILE", anyHub},
	{"HUB_MODULE", methods}, {"HUB_RATE", methods}, {"HUB_HTTPS_ADDR", methods},
	{"HUB_WEBSOCKET", messages}, {"HUB_FEEDBACK", messages}, {"HUB_AMQP_ADDR", messages},
	{"FAKE_LISTEN", []string{viaFake}}, {"FAKE_DEVICES", []string{viaFake}},
}

var (
	anyHub   = []string{viaC2D, viaMethod, viaAuto}
	methods  = []string{viaMethod, viaAuto}
	messages = []string{viaC2D, viaAuto}
)

// checkUse names the settings that the chosen signaler would pass over: whoever set
// them expects them to do something.
func checkUse(via string, bad complain) {
	for _, u := range users {
		_, set := os.LookupEnv("RELAY_" + u.name)
		_, file := os.LookupEnv("RELAY_" + u.name + "_FILE")
		if (set || file) && !slices.Contains(u.of, via) {
			bad(u.name, "is of no use with RELAY_SIGNALER=%s; it is for %s", via, strings.Join(u.of, ", "))
		}
	}
}

// prepare checks the settings of a hub and reads files. It asks nobody.
func (s *hubSettings) prepare(via string, bad complain) *hub {
	h := &hub{amqpAddr: s.AMQPAddr, httpsAddr: s.HTTPSAddr}
	s.identity(h, bad)
	roots, err := ws.LoadRoots(s.CAFile)
	if err != nil {
		bad("HUB_CA_FILE", "%w", err)
	}
	h.tls = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
	for _, a := range []struct{ name, value string }{{"HUB_AMQP_ADDR", s.AMQPAddr}, {"HUB_HTTPS_ADDR", s.HTTPSAddr}} {
		if host, _, err := net.SplitHostPort(a.value); a.value != "" && (err != nil || host == "") {
			bad(a.name, "%q is not host:port", a.value)
		}
	}
	if tier := strings.ToUpper(s.Tier); tier == "B1" || tier == "B2" || tier == "B3" {
		bad("HUB_TIER", "%s is the Basic tier, which has neither cloud-to-device messages nor direct methods; a hub can be moved to the Standard tier", tier)
	} else if h.rate, h.burst, err = method.RateFor(s.Tier, s.Units); err != nil {
		name := "HUB_UNITS"
		if _, _, of1 := method.RateFor(s.Tier, 1); of1 != nil {
			name = "HUB_TIER"
		}
		bad(name, "%w", err)
	}
	if !(s.Rate >= 0) {
		bad("HUB_RATE", "%v is negative", s.Rate)
	} else if s.Rate > 0 {
		h.rate, h.burst = s.Rate, 0
	}
	if via != viaC2D && h.credential != nil { // what is left are the names
		cfg := method.Config{HostName: h.name, Module: s.Module, Credential: h.credential}
		each(cfg.Validate(), map[string]string{"HostName": "HUB_HOST", "Module": "HUB_MODULE"}, bad)
	}
	return h
}

// identity finds out which hub, and who the relay is there.
func (s *hubSettings) identity(h *hub, bad complain) {
	kind := s.Credential
	if kind == "" && s.ConnectionString != "" {
		kind = connectionString
	}
	switch {
	case kind == "" && s.Host == "":
		bad("HUB_CONNECTION_STRING", "is missing; the portal shows it under Shared access policies, service. Or set RELAY_HUB_HOST and RELAY_HUB_CREDENTIAL. RELAY_SIGNALER=fake needs no hub")
	case kind == "":
		bad("HUB_CREDENTIAL", "is missing; one of %s", strings.Join(credentials(), ", "))
	case !slices.Contains(credentials(), kind):
		bad("HUB_CREDENTIAL", "%q is not one of %s", kind, strings.Join(credentials(), ", "))
	case kind == connectionString:
		s.fromConnectionString(h, bad)
	default:
		s.fromEntra(h, kind, bad)
	}
}

const connectionString = "connection-string"

func credentials() []string {
	names := []string{connectionString}
	for _, k := range entra.Kinds() {
		names = append(names, string(k))
	}
	return names
}

func (s *hubSettings) fromConnectionString(h *hub, bad complain) {
	for _, v := range []struct{ name, value string }{
		{"HUB_TENANT_ID", s.TenantID}, {"HUB_CLIENT_ID", s.ClientID}, {"HUB_CLIENT_SECRET", s.ClientSecret}, {"HUB_CLIENT_CERTIFICATE", s.ClientCertificate},
		{"HUB_CLIENT_CERTIFICATE_PASSWORD", s.CertificatePassword}, {"HUB_FEDERATED_TOKEN", s.FederatedToken}, {"HUB_AUTHORITY", s.Authority},
	} {
		if v.value != "" {
			bad(v.name, "is set, but a connection string has no use for it")
		}
	}
	if s.Host != "" {
		bad("HUB_HOST", "is set, but the connection string names the hub; keep one")
	}
	if s.ConnectionString == "" {
		bad("HUB_CONNECTION_STRING", "is missing; RELAY_HUB_CREDENTIAL=%s needs it", connectionString)
		return
	}
	c, err := serviceConnection(s.ConnectionString)
	if err == nil {
		h.signer, err = credential.FromConnectionString(c, 0)
	}
	if err != nil {
		bad("HUB_CONNECTION_STRING", "%w", err)
		return
	}
	h.credential = h.signer
	h.name, h.gateway, h.owner = c.HostName, c.GatewayHostName, c.PolicyName == "iothubowner"
	if c.GatewayHostName != "" {
		amqpPort := "5671"
		if s.WebSocket {
			amqpPort = "443"
		}
		h.amqpAddr = cmp.Or(h.amqpAddr, withPort(c.GatewayHostName, amqpPort))
		h.httpsAddr = cmp.Or(h.httpsAddr, withPort(c.GatewayHostName, "443"))
	}
}

// withPort adds a port to a host that has none.
func withPort(host, port string) string {
	if _, _, err := net.SplitHostPort(host); err == nil {
		return host
	}
	return net.JoinHostPort(host, port)
}

func (s *hubSettings) fromEntra(h *hub, kind string, bad complain) {
	if s.ConnectionString != "" {
		bad("HUB_CONNECTION_STRING", "is set, but RELAY_HUB_CREDENTIAL is %s; keep one", kind)
	}
	if h.name = s.Host; h.name == "" {
		bad("HUB_HOST", "is missing; %s needs it, as hub.azure-devices.net", kind)
	} else if strings.Contains(h.name, "://") || strings.ContainsAny(h.name, "/?#@; ") {
		bad("HUB_HOST", "%q is not a hub's name, as hub.azure-devices.net", h.name)
	}
	c := entra.Config{
		Kind: entra.Kind(kind), TenantID: s.TenantID, ClientID: s.ClientID, ClientSecret: s.ClientSecret, CertificateFile: s.ClientCertificate,
		CertificatePassword: s.CertificatePassword, TokenFile: s.FederatedToken, AuthorityHost: s.Authority,
	}
	if each(c.Validate(), map[string]string{
		"TenantID": "HUB_TENANT_ID", "ClientID": "HUB_CLIENT_ID", "ClientSecret": "HUB_CLIENT_SECRET", "CertificateFile": "HUB_CLIENT_CERTIFICATE",
		"CertificatePassword": "HUB_CLIENT_CERTIFICATE_PASSWORD", "TokenFile": "HUB_FEDERATED_TOKEN", "AuthorityHost": "HUB_AUTHORITY",
	}, bad) {
		return
	}
	var err error
	if h.credential, err = entra.New(c); err != nil {
		bad("HUB_CREDENTIAL", "%w", err)
	}
}

// each complains about each line of what a package's Validate said, by the variable
// that fills the field, and says whether there was any.
func each(err error, variables map[string]string, bad complain) bool {
	for _, e := range unjoin(err) {
		field, problem, _ := strings.Cut(e.Error(), ": ")
		name, ok := variables[field]
		if !ok {
			name, problem = "HUB_CREDENTIAL", e.Error()
		}
		bad(name, "%w", errors.New(problem))
	}
	return err != nil
}
