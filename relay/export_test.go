package relay

import (
	"net/url"
	"time"

	"websocketbridge/relay/policy"
	"websocketbridge/relay/token"
)

// SignedURL is what a signed URL says.
type SignedURL struct {
	DeviceID, Target, RequestData, Principal string
	Expires                                  time.Time
}

// Query signs u.
func (u SignedURL) Query(keys *token.Ring) string {
	return signedURL{aim{u.DeviceID, u.Target, u.RequestData}, u.Expires, u.Principal, nil, policy.Decision{}}.query(keys)
}

// OpenSigned reads and checks the query of a signed URL.
func OpenSigned(keys *token.Ring, query string, now time.Time) (SignedURL, error) {
	q, err := url.ParseQuery(query)
	if err != nil {
		return SignedURL{}, err
	}
	u, err := openSigned(keys, q, now)
	return SignedURL{u.deviceID, u.target, u.requestData, u.principal, u.expires}, err
}

// ClientAddr is for the tests of what proxies say.
var ClientAddr = clientAddr
