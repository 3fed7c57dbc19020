"""twisted.mail.smtp.ESMTPClient, subclassed to keep its connection."""

from io import BytesIO

import common
from twisted.internet import protocol, reactor
from twisted.mail import smtp
from twisted_common import openssl_version, tls_options

a = common.parse()
if a.mode == "fresh" or a.chunking:
    common.unsupported("this adapter keeps its connections and uses DATA")
options = tls_options(a)
big = a.size and a.size > 1 << 20
body = None if big else common.read(a.message).replace(b"\r\n", b"\n")
todo = common.Counter(a.messages)
done = 0
errors = []
left = a.connections
waiting = []
rcpts = [r.encode() for r in a.rcpts]


class Client(smtp.ESMTPClient):
    def __init__(self):
        smtp.ESMTPClient.__init__(
            self,
            common.PASSWORD.encode() if a.auth else b"",
            contextFactory=options,
            identity=common.HELO.encode(),
            logsize=10,
        )
        self.requireAuthentication = a.auth
        self.requireTransportSecurity = bool(options)
        if a.auth:
            self.registerAuthenticator(smtp.PLAINAuthenticator(common.USER.encode()))
        self.gated = a.barrier

    def smtpState_from(self, code, resp):
        if self.gated:
            self.gated = False
            waiting.append((self, code, resp))
            if len(waiting) == a.connections:
                for c, code, resp in waiting:
                    c.smtpState_from(code, resp)
            return None
        return smtp.ESMTPClient.smtpState_from(self, code, resp)

    def getMailFrom(self):
        return common.SENDER if todo.take() else None

    def getMailTo(self):
        return rcpts

    def getMailData(self):
        return open(a.message + ".lf", "rb") if big else BytesIO(body)

    def sentMail(self, code, resp, numOk, addresses, log):
        global done
        if code // 100 == 2 and numOk == a.recipients:
            done += 1
        else:
            errors.append(repr((code, resp)))

    def sendError(self, exc):
        errors.append(repr(exc))
        smtp.ESMTPClient.sendError(self, exc)

    def connectionLost(self, reason):
        global left
        smtp.ESMTPClient.connectionLost(self, reason)
        left -= 1
        if not left:
            reactor.stop()


class Factory(protocol.ClientFactory):
    protocol = Client
    noisy = False

    def buildProtocol(self, addr):
        p = Client()
        p.factory = self
        return p


def main():
    f = Factory()
    for _ in range(a.connections):
        reactor.connectTCP(a.host, a.port, f)


clock = common.Clock()
reactor.callWhenRunning(main)
common.profile_if_asked(reactor.run)
clock.report(done, tls=openssl_version(), errors=errors[:3])
