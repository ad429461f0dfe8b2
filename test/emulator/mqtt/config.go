package mqtt

import "time"

// Config bounds a connection. Zero fields have the defaults that they name.
type Config struct {
	MaxConnect     int           // bytes of a CONNECT; default 16 KiB
	MaxPacket      int           // bytes of any later packet; default 320 KiB
	ConnectTimeout time.Duration // until the CONNECT has come; default 30 s
	MaxSilence     time.Duration // caps 1.5 x keep-alive, and stands for keep-alive 0; default 1767 s
	WriteTimeout   time.Duration // for one write; default 30 s
	Window         int           // QoS 1 messages out and not acknowledged; default 16, at most 65535
	Backlog        int           // bytes asked to be sent and not yet written; default 4 MiB
}

func (c Config) withDefaults() Config {
	or := func(n *int, normal int) {
		if *n <= 0 {
			*n = normal
		}
	}
	orTime := func(d *time.Duration, normal time.Duration) {
		if *d <= 0 {
			*d = normal
		}
	}
	or(&c.MaxConnect, 16<<10)
	or(&c.MaxPacket, 320<<10)
	or(&c.Window, 16)
	or(&c.Backlog, 4<<20)
	orTime(&c.ConnectTimeout, 30*time.Second)
	orTime(&c.MaxSilence, 1767*time.Second)
	orTime(&c.WriteTimeout, 30*time.Second)
	c.Window = min(c.Window, 65535)
	return c
}

// silence is how long a client with this keep-alive may say nothing.
func (c Config) silence(keepAlive time.Duration) time.Duration {
	if keepAlive == 0 {
		return c.MaxSilence
	}
	return min(keepAlive*3/2, c.MaxSilence)
}
