package entra

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"websocketbridge/signaler/credential"
)

// Kind is which identity is used.
type Kind string

// The kinds.
const (
	ManagedIdentity   Kind = "managed-identity"
	WorkloadIdentity  Kind = "workload-identity"
	ClientSecret      Kind = "client-secret"
	ClientCertificate Kind = "client-certificate"
	AzureCLI          Kind = "azure-cli"
)

// Kinds returns all of them.
func Kinds() []Kind {
	return []Kind{ManagedIdentity, WorkloadIdentity, ClientSecret, ClientCertificate, AzureCLI}
}

// Scope is what tokens are for: IoT Hub, any of them.
const Scope = "https://iothubs.azure.net/.default"

// Config says which identity to use. A field that its Kind has no use for is an error:
// somebody expects it to do something.
type Config struct {
	Kind Kind
	// TenantID is the directory's ID or one of its domains. WorkloadIdentity takes
	// AZURE_TENANT_ID if it is empty, AzureCLI that of the login.
	TenantID string
	// ClientID is the app registration's; of a managed identity, which one.
	// WorkloadIdentity takes AZURE_CLIENT_ID if it is empty.
	ClientID     string
	ClientSecret string // the secret's value, not its ID

	CertificateFile     string // PEM or PFX, with the key
	CertificatePassword string // of a PFX file; empty: none
	// TokenFile is what the trusted issuer writes; empty: AZURE_FEDERATED_TOKEN_FILE.
	TokenFile string

	// AuthorityHost is where tokens come from, as in https://login.chinacloudapi.cn.
	// Empty: AZURE_AUTHORITY_HOST, or that of the public cloud.
	AuthorityHost string
	Scope         string       // empty: Scope
	HTTPClient    *http.Client // nil: one that heeds HTTPS_PROXY
}

// String names the identity without its secrets.
func (c Config) String() string {
	return fmt.Sprintf("%s{tenant %q client %q}", string(c.Kind), c.TenantID, c.ClientID)
}

// Format keeps every verb of package fmt from printing the secrets.
func (c Config) Format(f fmt.State, verb rune) {
	if verb == 'v' || verb == 's' {
		fmt.Fprint(f, c.String())
		return
	}
	fmt.Fprintf(f, fmt.FormatString(f, verb), c.String())
}

// MarshalText keeps JSON logs from printing the secrets.
func (c Config) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// LogValue keeps slog from printing the secrets.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// New returns a source of tokens of the identity. It checks c and reads files, but
// asks nobody yet.
func New(c Config) (credential.Source, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("entra: %w", err)
	}
	if c.Scope == "" {
		c.Scope = Scope
	}
	return newSource(string(c.Kind), c.Scope, c.make), nil
}

// FromTokenCredential returns a source of the tokens of any of azidentity's
// credentials, for a host that has one.
func FromTokenCredential(tc azcore.TokenCredential) credential.Source {
	return newSource("credential", Scope, func() (azcore.TokenCredential, error) { return tc, nil })
}

// Validate reports everything that is wrong with c, a line for each field, in their
// order.
func (c Config) Validate() error {
	uses, ok := map[Kind][]string{
		ManagedIdentity:   {"ClientID"},
		WorkloadIdentity:  {"TenantID", "ClientID", "TokenFile", "AuthorityHost"},
		ClientSecret:      {"TenantID", "ClientID", "ClientSecret", "AuthorityHost"},
		ClientCertificate: {"TenantID", "ClientID", "CertificateFile", "CertificatePassword", "AuthorityHost"},
		AzureCLI:          {"TenantID"},
	}[c.Kind]
	if !ok {
		return fmt.Errorf("Kind: %q is none of %q", string(c.Kind), Kinds())
	}
	var needs []string
	switch c.Kind {
	case ClientSecret:
		needs = []string{"TenantID", "ClientID", "ClientSecret"}
	case ClientCertificate:
		needs = []string{"TenantID", "ClientID", "CertificateFile"}
	case WorkloadIdentity:
		for field, name := range map[string]string{"TenantID": "AZURE_TENANT_ID", "ClientID": "AZURE_CLIENT_ID", "TokenFile": "AZURE_FEDERATED_TOKEN_FILE"} {
			if os.Getenv(name) == "" {
				needs = append(needs, field)
			}
		}
	}
	var errs []error
	bad := func(field, format string, args ...any) { errs = append(errs, fmt.Errorf(field+": "+format, args...)) }
	for _, f := range []struct{ name, value string }{
		{"TenantID", c.TenantID}, {"ClientID", c.ClientID}, {"ClientSecret", c.ClientSecret}, {"CertificateFile", c.CertificateFile},
		{"CertificatePassword", c.CertificatePassword}, {"TokenFile", c.TokenFile}, {"AuthorityHost", c.AuthorityHost},
	} {
		switch {
		case f.value != "" && !slices.Contains(uses, f.name):
			bad(f.name, "is set, but %s has no use for it", c.Kind)
		case f.value == "" && slices.Contains(needs, f.name):
			bad(f.name, "is missing; %s needs it", c.Kind)
		case f.value == "":
		case f.name == "TenantID" && strings.Trim(f.value, tenantChars) != "":
			bad(f.name, "%q is neither a directory's ID nor its domain", f.value)
		case f.name == "AuthorityHost":
			if u, err := url.Parse(f.value); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
				bad(f.name, "%q is not a URL like https://login.microsoftonline.com", f.value)
			}
		}
	}
	if len(errs) == 0 { // files
		if _, err := c.make(); err != nil {
			bad(map[Kind]string{ClientCertificate: "CertificateFile", WorkloadIdentity: "TokenFile"}[c.Kind], "%w", err)
		}
	}
	return errors.Join(errs...)
}

const tenantChars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-"

// tryTime bounds one request for a token, so that a lost one is followed by another
// while a requester waits. azidentity would wait for a minute.
const tryTime = 5 * time.Second

// make makes azidentity's credential. c is valid.
func (c Config) make() (azcore.TokenCredential, error) {
	o := azcore.ClientOptions{Retry: policy.RetryOptions{TryTimeout: tryTime, MaxRetryDelay: tryTime}}
	o.Cloud.ActiveDirectoryAuthorityHost = c.AuthorityHost
	if c.HTTPClient != nil {
		o.Transport = c.HTTPClient
	}
	// Asking the public cloud about an authority that it does not know would fail.
	private := c.AuthorityHost != "" && !slices.ContainsFunc([]cloud.Configuration{cloud.AzurePublic, cloud.AzureChina, cloud.AzureGovernment},
		func(known cloud.Configuration) bool {
			return strings.TrimSuffix(known.ActiveDirectoryAuthorityHost, "/") == strings.TrimSuffix(c.AuthorityHost, "/")
		})
	switch c.Kind {
	case ManagedIdentity:
		mo := &azidentity.ManagedIdentityCredentialOptions{ClientOptions: o}
		if c.ClientID != "" {
			mo.ID = azidentity.ClientID(c.ClientID)
		}
		return azidentity.NewManagedIdentityCredential(mo)
	case WorkloadIdentity:
		file := c.TokenFile
		if file == "" {
			file = os.Getenv("AZURE_FEDERATED_TOKEN_FILE")
		}
		if _, err := os.Stat(file); err != nil { // azidentity reads it later
			return nil, err
		}
		return azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{
			ClientOptions: o, DisableInstanceDiscovery: private, ClientID: c.ClientID, TenantID: c.TenantID, TokenFilePath: c.TokenFile,
		})
	case ClientSecret:
		return azidentity.NewClientSecretCredential(c.TenantID, c.ClientID, c.ClientSecret,
			&azidentity.ClientSecretCredentialOptions{ClientOptions: o, DisableInstanceDiscovery: private})
	case ClientCertificate:
		b, err := os.ReadFile(c.CertificateFile)
		if err != nil {
			return nil, err
		}
		certs, key, err := azidentity.ParseCertificates(b, []byte(c.CertificatePassword))
		if err != nil {
			return nil, fmt.Errorf("%s: %w; it has to hold a certificate and its RSA key without a password (PEM), or both in PKCS #12 (PFX)", c.CertificateFile, err)
		}
		if end := certs[0].NotAfter; time.Now().After(end) {
			return nil, fmt.Errorf("%s: the certificate expired on %s", c.CertificateFile, end.Format(time.DateOnly))
		}
		return azidentity.NewClientCertificateCredential(c.TenantID, c.ClientID, certs, key,
			&azidentity.ClientCertificateCredentialOptions{ClientOptions: o, DisableInstanceDiscovery: private, SendCertificateChain: true})
	default:
		return azidentity.NewAzureCLICredential(&azidentity.AzureCLICredentialOptions{TenantID: c.TenantID})
	}
}
