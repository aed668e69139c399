"""KEDA's five questions, answered from memory. Nothing here waits for anybody else.

Requests come as bytes and are read here: what cannot be read is INVALID_ARGUMENT, not a stack trace.
A question without an answer is a status, never a zero: KEDA's `fallback` or the HPA's hold then apply.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

from autoscaler.edge.keda import externalscaler_pb2 as pb
from autoscaler.edge.keda.answers import Answer, answer_now
from autoscaler.edge.keda.errors import Kind, NoAnswerError
from autoscaler.edge.keda.hpa_facts import TARGET
from autoscaler.edge.keda.metric import metric_of
from autoscaler.edge.keda.metrics import ScalerMetrics
from autoscaler.edge.keda.plans import Plans
from autoscaler.edge.keda.trigger import Trigger, trigger_of

Context = grpc.aio.ServicerContext[Any, Any]
M = TypeVar("M", bound=Message)
SERVICE = "externalscaler.ExternalScaler"
LOOK_SECONDS = 5.0  # streams look again: ages grow without an event
STATUS: dict[Kind, grpc.StatusCode] = {
    "bad_metadata": grpc.StatusCode.INVALID_ARGUMENT,
    "unknown_policy": grpc.StatusCode.NOT_FOUND,
    "not_served": grpc.StatusCode.FAILED_PRECONDITION,
    "nothing_known": grpc.StatusCode.UNAVAILABLE,
}


class Bells:
    """Wakes the streams of a service when something about it is new. Of one event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._bells: dict[str, set[asyncio.Event]] = {}

    def hang(self, service: str) -> asyncio.Event:
        """Return a bell for one stream."""
        bell = asyncio.Event()
        self._bells.setdefault(service, set()).add(bell)
        return bell

    def take_down(self, service: str, bell: asyncio.Event) -> None:
        """Forget a stream's bell."""
        bells = self._bells[service]
        bells.discard(bell)
        if not bells:
            del self._bells[service]

    def ring_from_outside(self, service: str) -> None:
        """Ring for a service from any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._ring, service)

    def ring_all(self) -> None:
        """Ring for everybody."""
        for service in tuple(self._bells):
            self._ring(service)

    def _ring(self, service: str) -> None:
        for bell in self._bells.get(service, ()):
            bell.set()


class ExternalScaler:
    """The service of externalscaler.proto. To be made inside the event loop that serves it."""

    def __init__(self, plans: Plans, metrics: ScalerMetrics) -> None:
        self._plans = plans
        self._metrics = metrics
        self._bells = Bells()
        self._ending = False
        plans.listen(self._bells.ring_from_outside)

    def handlers(self) -> "grpc.GenericRpcHandler[Any, Any]":
        """Return the methods for a server."""
        one, many = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        methods = {
            "IsActive": one(self._once("IsActive", self.is_active)),
            "GetMetricSpec": one(self._once("GetMetricSpec", self.metric_spec)),
            "GetMetrics": one(self._once("GetMetrics", self.metrics)),
            "StreamIsActive": many(self._stream("StreamIsActive", self._tell_activity)),
            "StreamMetricSpec": many(self._stream("StreamMetricSpec", self._tell_spec)),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    async def look_again_forever(self) -> None:
        """Have streams look again from time to time: a plan gets old without anybody saying so."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self._bells.ring_all()

    def end_streams(self) -> None:
        """End all streams in peace: KEDA then comes back in two seconds, after an error ever later."""
        self._ending = True
        self._bells.ring_all()

    def is_active(self, body: bytes) -> bytes:
        """Answer IsActive."""
        answer = self._answer(_trigger(_read(pb.ScaledObjectRef, body)))
        return pb.IsActiveResponse(result=answer.replicas > 0).SerializeToString()

    def metric_spec(self, body: bytes) -> bytes:
        """Answer GetMetricSpec: from the request alone."""
        return _spec(_trigger(_read(pb.ScaledObjectRef, body)))

    def metrics(self, body: bytes) -> bytes:
        """Answer GetMetrics."""
        request = _read(pb.GetMetricsRequest, body)
        trigger = _trigger(request.scaledObjectRef)
        answer = self._answer(trigger)
        self._metrics.answered[answer.source]()
        number = metric_of(answer, trigger)
        value = pb.MetricValue(
            metricName=request.metricName,
            metricValue=number.whole,
            metricValueFloat=number.value,
        )
        return pb.GetMetricsResponse(metricValues=[value]).SerializeToString()

    def _answer(self, trigger: Trigger) -> Answer:
        dated = self._plans.get(trigger.service)
        if dated is None:
            if not self._plans.listed:
                raise NoAnswerError("nothing_known", "the policies have not been read yet")
            if problem := self._plans.problem(trigger.service):
                raise NoAnswerError("nothing_known", problem)
            raise NoAnswerError("unknown_policy", f"there is no ScalingPolicy {trigger.service}")
        answer = answer_now(self._plans, dated, trigger)
        self._plans.asked(trigger, answer.variant.name)
        return answer

    def _once(
        self, method: str, answer: Callable[[bytes], bytes]
    ) -> Callable[[bytes, Context], Awaitable[bytes]]:
        async def call(body: bytes, context: Context) -> bytes:
            begun = self._plans.clock.monotonic()
            try:
                out = answer(body)
            except NoAnswerError as error:
                await self._refuse(method, error, context)
            self._metrics.ended(method, "OK")
            self._metrics.request_seconds.observe(self._plans.clock.monotonic() - begun)
            return out

        return call

    async def _refuse(self, method: str, error: NoAnswerError, context: Context) -> NoReturn:
        status = STATUS[error.kind]
        self._metrics.ended(method, status.name)
        await context.abort(status, str(error))
        raise AssertionError("abort always raises")

    def _stream(
        self, method: str, tell: Callable[[Trigger, asyncio.Event, Context], Awaitable[None]]
    ) -> Callable[[bytes, Context], Awaitable[None]]:
        async def call(body: bytes, context: Context) -> None:
            try:
                trigger = _trigger(_read(pb.ScaledObjectRef, body))
            except NoAnswerError as error:
                await self._refuse(method, error, context)
            bell = self._bells.hang(trigger.service)
            self._metrics.open_streams.inc()
            try:
                await tell(trigger, bell, context)
            finally:
                self._metrics.open_streams.dec()
                self._bells.take_down(trigger.service, bell)
                self._metrics.ended(method, "OK" if self._ending else "CANCELLED")

        return call

    async def _tell_activity(self, trigger: Trigger, bell: asyncio.Event, context: Context) -> None:
        """Tell whether it is active at once and at each change; while that is not known, nothing."""
        told: bool | None = None
        while not self._ending:
            bell.clear()
            active = self._active(trigger)
            if active is not None and active is not told:
                await context.write(pb.IsActiveResponse(result=active).SerializeToString())
                told = active
            else:
                await bell.wait()

    def _active(self, trigger: Trigger) -> bool | None:
        try:
            return self._answer(trigger).replicas > 0
        except NoAnswerError:
            return None

    async def _tell_spec(self, trigger: Trigger, bell: asyncio.Event, context: Context) -> None:
        """Tell the target at once; it does not change while the trigger's metadata do not."""
        await context.write(_spec(trigger))
        while not self._ending:
            bell.clear()
            await bell.wait()


def _read(kind: type[M], body: bytes) -> M:
    try:
        return kind.FromString(body)
    except DecodeError:
        name = kind.DESCRIPTOR.full_name
        raise NoAnswerError("bad_metadata", f"the message is no {name}") from None


def _trigger(ref: pb.ScaledObjectRef) -> Trigger:
    return trigger_of(ref.namespace, ref.scalerMetadata)


def _spec(trigger: Trigger) -> bytes:
    spec = pb.MetricSpec(
        metricName=trigger.metric_name, targetSize=round(TARGET), targetSizeFloat=TARGET
    )
    return pb.GetMetricSpecResponse(metricSpecs=[spec]).SerializeToString()
