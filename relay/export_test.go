package relay

// ClientAddr is for the tests of what proxies say.
var ClientAddr = clientAddr
