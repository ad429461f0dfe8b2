package cluster

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"
)

// Config is what a node needs to be one of several. Fields without a default are
// required.
type Config struct {
	// Address is host:port at which peers reach this node's node port. It is sealed
	// into this node's tokens.
	Address string
	// Peers are the nodes that may be dialled.
	Peers *Peers
	// Keys prove that two nodes belong together: the *token.Ring that seals tokens.
	Keys Keys
	// TLS of both ends of the node port, of SelfTLS or MutualTLS; nil: none.
	TLS *tls.Config
	// DialTimeout is for TCP, TLS and proof; 0: 3 s; at most 10 s: the device waits for
	// the answer, and its own patience is for a network and not for two.
	DialTimeout time.Duration

	// Dial and Lookup replace the network, for tests; nil: the real one.
	Dial   func(ctx context.Context, network, addr string) (net.Conn, error)
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)

	Logger *slog.Logger // nil: silent
}

// Keys make and check proofs.
type Keys interface {
	MAC(purpose string, data []byte) []byte
	CheckMAC(purpose string, data, mac []byte) error
}

// Limits of Config.
const (
	DefaultDialTimeout = 3 * time.Second
	MaxDialTimeout     = 10 * time.Second
	maxAddress         = 255 // bytes; a token writes the length in one
)

// Validate reports every fault at once.
func (c Config) Validate() error {
	var errs []error
	if err := CheckAddress(c.Address); err != nil {
		errs = append(errs, fmt.Errorf("Address: %w", err))
	}
	if c.Peers == nil {
		errs = append(errs, errors.New("Peers: are missing"))
	}
	if c.Keys == nil {
		errs = append(errs, errors.New("Keys: are missing"))
	}
	if c.DialTimeout < 0 || c.DialTimeout > MaxDialTimeout {
		errs = append(errs, fmt.Errorf("DialTimeout: %v is not between 0 and %v", c.DialTimeout, MaxDialTimeout))
	}
	return errors.Join(errs...)
}

// CheckAddress says why peers could not dial addr, or nil.
func CheckAddress(addr string) error {
	if host, _, err := net.SplitHostPort(addr); err == nil && host == "" {
		return fmt.Errorf("%q is every address of this machine; peers need one", addr)
	}
	a, err := parseAddress(addr)
	if err != nil {
		return fmt.Errorf("%.300q %w", addr, err)
	}
	if n := len(a.String()); n > maxAddress {
		return fmt.Errorf("%.40q… has %d bytes; a token holds %d", addr, n, maxAddress)
	}
	return nil
}

// A Node is this node as its peers see it, and they as it sees them. It is used from
// many goroutines.
type Node struct {
	cfg Config
	own *name // what Config.Address names, if it is no IP address
}

// New checks cfg. It starts nothing.
func New(cfg Config) (*Node, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	cfg.DialTimeout = cmp.Or(cfg.DialTimeout, DefaultDialTimeout)
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{KeepAliveConfig: keepAlive}).DialContext
	}
	if cfg.Lookup == nil {
		cfg.Lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	a, err := parseAddress(cfg.Address)
	if err != nil {
		return nil, err
	}
	cfg.Address = a.String() // the text that peers know
	n := &Node{cfg: cfg}
	if !a.ip.IsValid() {
		n.own = newName(a)
	}
	return n, nil
}

// Address is where peers reach this node.
func (n *Node) Address() string { return n.cfg.Address }
