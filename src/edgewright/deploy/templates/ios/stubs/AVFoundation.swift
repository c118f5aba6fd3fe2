// What the sample app uses of AVFoundation, Core Media and Core Video, declared for type checking where they are not.
@_exported import Foundation

public final class CMSampleBuffer {}
public final class CVPixelBuffer {}
public enum CVPixelBufferLockFlags: Sendable { case readOnly }
public let kCVPixelBufferPixelFormatTypeKey = "PixelFormatType"
public let kCVPixelFormatType_32BGRA: UInt32 = 0x4247_5241
public func CMSampleBufferGetImageBuffer(_ buffer: CMSampleBuffer) -> CVPixelBuffer? { nil }
@discardableResult
public func CVPixelBufferLockBaseAddress(_ buffer: CVPixelBuffer, _ flags: CVPixelBufferLockFlags) -> Int32 { 0 }
@discardableResult
public func CVPixelBufferUnlockBaseAddress(_ buffer: CVPixelBuffer, _ flags: CVPixelBufferLockFlags) -> Int32 { 0 }
public func CVPixelBufferGetBaseAddress(_ buffer: CVPixelBuffer) -> UnsafeMutableRawPointer? { nil }
public func CVPixelBufferGetBytesPerRow(_ buffer: CVPixelBuffer) -> Int { 0 }
public func CVPixelBufferGetHeight(_ buffer: CVPixelBuffer) -> Int { 0 }
public func CVPixelBufferGetWidth(_ buffer: CVPixelBuffer) -> Int { 0 }

public struct AVMediaType: Sendable {
    public static let video = AVMediaType()
    public static let audio = AVMediaType()
}
public final class AVCaptureDevice {
    public static func `default`(for type: AVMediaType) -> AVCaptureDevice? { nil }
    public static func requestAccess(for type: AVMediaType) async -> Bool { false }
}
public class AVCaptureInput {}
public class AVCaptureOutput {}
public final class AVCaptureConnection {}
public final class AVCaptureDeviceInput: AVCaptureInput {
    public init(device: AVCaptureDevice) throws {}
}
public protocol AVCaptureVideoDataOutputSampleBufferDelegate: AnyObject {
    func captureOutput(
        _ output: AVCaptureOutput, didOutput sampleBuffer: CMSampleBuffer, from connection: AVCaptureConnection)
}
public final class AVCaptureVideoDataOutput: AVCaptureOutput {
    public override init() {}
    public var videoSettings: [String: Any] = [:]
    public var alwaysDiscardsLateVideoFrames = false
    public func setSampleBufferDelegate(
        _ delegate: AVCaptureVideoDataOutputSampleBufferDelegate?, queue: DispatchQueue?
    ) {}
}
public final class AVCaptureSession {
    public init() {}
    public func canAddInput(_ input: AVCaptureInput) -> Bool { true }
    public func canAddOutput(_ output: AVCaptureOutput) -> Bool { true }
    public func addInput(_ input: AVCaptureInput) {}
    public func addOutput(_ output: AVCaptureOutput) {}
    public func startRunning() {}
}

public typealias AVAudioFrameCount = UInt32
public typealias AVAudioNodeBus = Int
public enum AVAudioCommonFormat: UInt { case otherFormat, pcmFormatFloat32 }
public final class AVAudioTime {}
public final class AVAudioFormat: @unchecked Sendable {
    public init?(
        commonFormat: AVAudioCommonFormat, sampleRate: Double, channels: UInt32, interleaved: Bool
    ) {
        self.sampleRate = sampleRate
    }
    public let sampleRate: Double
}
public class AVAudioBuffer {
    public let format: AVAudioFormat
    init(format: AVAudioFormat) { self.format = format }
}
public final class AVAudioPCMBuffer: AVAudioBuffer {
    public init?(pcmFormat: AVAudioFormat, frameCapacity: AVAudioFrameCount) { super.init(format: pcmFormat) }
    public var frameLength: AVAudioFrameCount = 0
    public var floatChannelData: UnsafePointer<UnsafeMutablePointer<Float>>? { nil }
}
public enum AVAudioConverterInputStatus: Int { case haveData, noDataNow, endOfStream }
public enum AVAudioConverterOutputStatus: Int { case haveData, inputRanDry, endOfStream, error }
public typealias AVAudioConverterInputBlock = @Sendable (
    AVAudioFrameCount, UnsafeMutablePointer<AVAudioConverterInputStatus>
) -> AVAudioBuffer?
public final class AVAudioConverter {
    public init?(from: AVAudioFormat, to: AVAudioFormat) {}
    @discardableResult
    public func convert(
        to output: AVAudioBuffer, error: UnsafeMutablePointer<NSError?>?, withInputFrom block: AVAudioConverterInputBlock
    ) -> AVAudioConverterOutputStatus { .error }
}
public typealias AVAudioNodeTapBlock = (AVAudioPCMBuffer, AVAudioTime) -> Void
public class AVAudioNode {
    public func outputFormat(forBus bus: AVAudioNodeBus) -> AVAudioFormat { fatalError() }
    public func installTap(
        onBus bus: AVAudioNodeBus, bufferSize: AVAudioFrameCount, format: AVAudioFormat?,
        block: @escaping AVAudioNodeTapBlock
    ) {}
}
public final class AVAudioInputNode: AVAudioNode {}
public final class AVAudioEngine {
    public init() {}
    public let inputNode = AVAudioInputNode()
    public func start() throws {}
}
