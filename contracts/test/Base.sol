// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ConunToken} from "../src/ConunToken.sol";
import {Disputes} from "../src/Disputes.sol";
import {JobEscrow} from "../src/JobEscrow.sol";
import {ProviderRegistry} from "../src/ProviderRegistry.sol";

/// The cheatcodes of forge that the tests use (https://getfoundry.sh/reference/cheatcodes/overview).
interface Vm {
    function prank(address sender) external;
    function startPrank(address sender) external;
    function stopPrank() external;
    function warp(uint256 timestamp) external;
    function chainId(uint256 id) external;
    function addr(uint256 key) external pure returns (address);
    function sign(uint256 key, bytes32 digest) external pure returns (uint8 v, bytes32 r, bytes32 s);
    function expectRevert(bytes calldata data) external;
    function expectRevert(bytes4 selector) external;
    function assume(bool condition) external pure;
    function computeCreateAddress(address deployer, uint256 nonce) external pure returns (address);
    function getNonce(address account) external view returns (uint64);
    function snapshotGasLastCall(string calldata name) external returns (uint256);
}

/// Contracts as they are deployed, people with keys, and a few words for what they sign.
abstract contract Base {
    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    uint256 internal constant CLIENT_KEY = 0xC11E27;
    uint256 internal constant SPENDER_KEY = 0x59E2DE2;
    uint256 internal constant NODE_KEY = 0x20DE;
    uint128 internal constant DEPOSIT = 1_000 ether;
    bytes32 internal constant JOB = bytes32(bytes16(hex"0192aabbccddeeff0011223344556677"));

    address internal immutable client = vm.addr(CLIENT_KEY);
    address internal immutable spender = vm.addr(SPENDER_KEY);
    address internal immutable node = vm.addr(NODE_KEY);
    address internal immutable operator = address(0x0BE2A702);
    address internal immutable payout = address(0x9A40);
    address internal immutable admin = address(0xAD317);

    ConunToken internal token;
    ProviderRegistry internal registry;
    JobEscrow internal escrow;
    Disputes internal disputes;

    function setUp() public virtual {
        vm.warp(1_000_000);
        token = new ConunToken(address(this), 1_000_000 ether);
        registry = new ProviderRegistry(token, later(1), later(2));
        escrow = new JobEscrow(token, registry, admin);
        disputes = new Disputes(escrow, 100 ether);
        token.transfer(client, 100_000 ether);
        token.transfer(operator, 1_000 ether);
        vm.prank(client);
        token.approve(address(escrow), type(uint256).max);
        vm.startPrank(operator);
        token.approve(address(registry), type(uint256).max);
        registry.stake(500 ether);
        registry.setPayout(payout);
        registry.delegate(node, signed(NODE_KEY, consent(operator)));
        vm.stopPrank();
    }

    /// Where the contract will be that this one deploys after so many others.
    function later(uint256 others) internal view returns (address) {
        return vm.computeCreateAddress(address(this), vm.getNonce(address(this)) + others);
    }

    function openJob() internal {
        vm.prank(client);
        escrow.open(JOB, DEPOSIT, spender, DEPOSIT / 2);
    }

    function signed(uint256 key, bytes32 digest) internal pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return abi.encodePacked(r, s, v);
    }

    /// The domain as `conun_types::eip712::Domain::separator` has it.
    function domain(address verifier) internal view returns (bytes32) {
        return keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("Conun"),
                keccak256("1"),
                block.chainid,
                verifier
            )
        );
    }

    function typed(address verifier, bytes32 hash) internal view returns (bytes32) {
        return keccak256(abi.encodePacked(hex"1901", domain(verifier), hash));
    }

    function consent(address to) internal view returns (bytes32) {
        return typed(address(registry), keccak256(abi.encode(registry.CONSENT_TYPEHASH(), to)));
    }

    function voucher(address provider, uint128 cumulative) internal view returns (bytes32) {
        return typed(address(escrow), keccak256(abi.encode(escrow.VOUCHER_TYPEHASH(), JOB, provider, cumulative)));
    }

    function settlement(JobEscrow.Batch memory batch, JobEscrow.Earning[] memory earnings, bytes memory records)
        internal
        view
        returns (bytes32)
    {
        return typed(
            address(escrow),
            keccak256(
                abi.encode(
                    escrow.SETTLEMENT_TYPEHASH(),
                    batch.job,
                    batch.batch,
                    batch.root,
                    batch.stages,
                    keccak256(abi.encode(earnings)),
                    keccak256(records)
                )
            )
        );
    }

    function one(address provider, uint128 cumulative) internal pure returns (JobEscrow.Earning[] memory earnings) {
        earnings = new JobEscrow.Earning[](1);
        earnings[0] = JobEscrow.Earning(provider, cumulative);
    }

    function batchOf(uint32 number, uint32 stages) internal pure returns (JobEscrow.Batch memory) {
        return JobEscrow.Batch(JOB, number, keccak256("root"), stages);
    }

    function settleOne(uint256 key, uint32 number, uint128 cumulative) internal {
        JobEscrow.Batch memory batch = batchOf(number, 1);
        JobEscrow.Earning[] memory earnings = one(node, cumulative);
        bytes memory signature = signed(key, settlement(batch, earnings, ""));
        escrow.settle(batch, earnings, "", signature);
    }

    function equal(uint256 found, uint256 expected, string memory what) internal pure {
        require(found == expected, what);
    }
}
